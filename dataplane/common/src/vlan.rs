//! Which network on a cable a frame belongs to: its VLAN tags.

use core::fmt;
use core::str::FromStr;

/// The VLANs of a network of clients: none, one (802.1Q), or an outer and an inner one (802.1ad).
///
/// `outer << 16 | inner`, one alone in the lower half, 0 for none. Tags with VLAN 0 only carry a priority (802.1Q
/// §9.6), so they count for none. The kind of a tag (0x8100, 0x88a8) does not count either.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(transparent)]
pub struct Vlan(u32);

/// No VLAN has a higher number; 4095 is reserved (802.1Q table 9-2).
const LAST: u16 = 4094;

impl Vlan {
    /// Frames without a tag.
    pub const NONE: Self = Self(0);

    /// Behind one tag; `None` unless it is 1 to 4094.
    #[must_use]
    pub const fn one(id: u16) -> Option<Self> {
        if id >= 1 && id <= LAST { Some(Self(id as u32)) } else { None }
    }

    /// Behind two tags; `None` unless each is 1 to 4094.
    #[must_use]
    pub const fn two(outer: u16, inner: u16) -> Option<Self> {
        match (Self::one(outer), Self::one(inner)) {
            (Some(outer), Some(inner)) => Some(Self(outer.0 << 16 | inner.0)),
            (None, _) | (_, None) => None,
        }
    }

    /// As it stands in [`crate::layout::Port::vlan`].
    #[inline(always)]
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The same with one more tag inside, given by its control information (priority and VLAN).
    #[inline(always)]
    #[must_use]
    pub const fn inside(self, control: u16) -> Self {
        let id = (control & 0xfff) as u32;
        if id == 0 { self } else { Self(self.0 << 16 | id) }
    }

    /// The VLANs, outermost first; 0 where there is none.
    #[must_use]
    pub const fn ids(self) -> [u16; 2] {
        [(self.0 >> 16) as u16, self.0 as u16]
    }

    /// Whether frames carry no tag but perhaps one for a priority.
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// `30`, `100.30`, and `0` for none.
impl fmt::Display for Vlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ids() {
            [0, one] => write!(f, "{one}"),
            [outer, inner] => write!(f, "{outer}.{inner}"),
        }
    }
}

/// What is no VLAN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoVlan;

impl fmt::Display for NoVlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a VLAN is 1 to {LAST}, two of them OUTER.INNER, and 0 for none")
    }
}

impl core::error::Error for NoVlan {}

impl FromStr for Vlan {
    type Err = NoVlan;

    fn from_str(text: &str) -> Result<Self, NoVlan> {
        let id = |text: &str| text.parse::<u16>().map_err(|_| NoVlan);
        match text.split_once('.') {
            Some((outer, inner)) => Self::two(id(outer)?, id(inner)?).ok_or(NoVlan),
            None => match id(text)? {
                0 => Ok(Self::NONE),
                one => Self::one(one).ok_or(NoVlan),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn text_reads_back_and_mistakes_are_refused() {
        for good in ["0", "1", "30", "4094", "100.30", "4094.1"] {
            assert_eq!(good.parse::<Vlan>().unwrap().to_string(), good);
        }
        for bad in ["", "4095", "-1", "30.0", "0.30", "30.4095", "1.2.3", "x", "30.", "65536"] {
            assert_eq!(bad.parse::<Vlan>(), Err(NoVlan), "{bad}");
        }
    }

    #[test]
    fn tags_that_only_carry_a_priority_count_for_none() {
        let of = |tags: &[u16]| tags.iter().fold(Vlan::NONE, |vlan, tag| vlan.inside(*tag));
        assert_eq!(of(&[0xe000]), Vlan::NONE);
        assert_eq!(of(&[0xa01e]), Vlan::one(30).unwrap());
        assert_eq!(of(&[0x0064, 0x001e]), Vlan::two(100, 30).unwrap());
        assert_eq!([of(&[0, 30]), of(&[30, 0])], [Vlan::one(30).unwrap(); 2]);
    }
}
