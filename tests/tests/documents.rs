//! What the documents tell people to type is typed, in a lab.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use farm_lab::{Mode, Place, binaries, shell};
use farm_tests::farm::{Farm, LIMIT};

/// What a lab does in another way than a server, by how its command begins.
const INSTEAD: [(&str, Instead); 15] = [
    // The tests have built it.
    ("make build", Instead::Nothing),
    ("make install", Instead::Typed("make --silent -C $PROJECT install DESTDIR=$SCRATCH BUILT=$BUILT")),
    (
        "install -D -m 0644 /usr/share/farm/farmd.toml",
        Instead::Typed("test -s $SCRATCH/usr/share/farm/farmd.toml"),
    ),
    ("vi /etc/farm/farmd.toml", Instead::Configure),
    ("farmd --check", Instead::Typed("farmd --check --config $HOME/farmd.toml")),
    ("farmd doctor", Instead::Typed("farmd doctor --config $HOME/farmd.toml")),
    // It would change this machine.
    ("sysctl --system", Instead::Nothing),
    ("systemctl daemon-reload", Instead::Nothing),
    ("systemctl enable --now farmd farm-applications", Instead::Start),
    ("systemctl disable --now farmd farm-applications", Instead::Stop),
    // The nodes of a lab have one file.
    ("scp /etc/farm/secret ", Instead::Nothing),
    // As one would who reads what the templates say.
    (
        "vi pages/module.toml",
        Instead::Typed("sed -i 's/^address = .*/address = \"192.0.2.100\"/' pages/module.toml"),
    ),
    (
        "vi shop/module.toml",
        Instead::Typed(
            "sed -i -e 's/^address = .*/address = \"192.0.2.102\"/' -e 's/^PORT = .*/PORT = \"8081\"/' shop/module.toml",
        ),
    ),
    // All programs are of one build here: it says so.
    ("farmctl cluster finalize", Instead::Typed("farmctl cluster finalize --json 2>&1 | grep -q bad_level")),
    ("rm -r /etc/farm /var/lib/farm", Instead::Typed("rm -r $HOME/data")),
];

/// What is done.
#[derive(Clone, Copy)]
enum Instead {
    Nothing,
    Typed(&'static str),
    /// The lab writes the file.
    Configure,
    /// As systemd does.
    Start,
    /// As systemd does.
    Stop,
}

/// A command of a document.
#[derive(Debug, PartialEq)]
struct Command<'a> {
    /// Its line, from 1.
    line: usize,
    /// Where it is typed; `None` means on every server.
    at: Option<Place>,
    typed: &'a str,
}

fn project() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().expect("this crate is a folder of the project").to_path_buf()
}

fn text(page: &str) -> Result<String> {
    fs::read_to_string(project().join(page)).with_context(|| page.to_owned())
}

/// The commands in the blocks of a page: what follows a prompt of root, up to a remark.
fn commands(page: &str) -> Vec<Command<'_>> {
    let mut in_block = false;
    let mut found = Vec::new();
    for (number, line) in page.lines().enumerate() {
        if line.starts_with("```") {
            in_block = !in_block;
            continue;
        }
        let Some((prompt, typed)) = line.split_once("# ").filter(|_| in_block) else { continue };
        let at = if prompt.is_empty() { Ok(None) } else { prompt.parse().map(Some) };
        let typed = typed.split("  #").next().unwrap_or_default().trim();
        found.extend(at.ok().map(|at| Command { line: number + 1, at, typed }));
    }
    found
}

/// A farm that is not there yet, and people who read.
struct Readers {
    farm: Farm,
    scratch: tempfile::TempDir,
}

impl Readers {
    fn new(prefix: &str) -> Result<Self> {
        Ok(Self { farm: Farm::unborn(prefix, Mode::Directed)?, scratch: tempfile::tempdir()? })
    }

    /// Types what a page says.
    fn follow(&self, page: &str) -> Result<()> {
        let text = text(page)?;
        for command in commands(&text) {
            let places = command.at.map_or_else(|| self.farm.nodes().collect(), |place| vec![place]);
            for place in places {
                let done = command.typed.split(" && ").try_for_each(|part| self.obey(place, part));
                done.with_context(|| format!("{page}:{}: {} on {place}", command.line, command.typed))?;
            }
        }
        Ok(())
    }

    fn obey(&self, place: Place, typed: &str) -> Result<()> {
        let instead = INSTEAD.iter().find(|(begin, _)| typed.starts_with(begin));
        match instead.map_or(Instead::Typed(""), |(_, instead)| *instead) {
            Instead::Nothing => Ok(()),
            Instead::Typed("") => self.type_in(place, typed),
            Instead::Typed(other) => self.type_in(place, other),
            Instead::Configure => self.farm.configure(place).map(drop),
            Instead::Start => self.farm.start_farmd(place).map(drop),
            Instead::Stop => {
                self.farm.terminate_farmd(place)?;
                let ended = || Ok(self.farm.farmd(place)?.is_none().then_some(()));
                shell::await_value(&format!("the daemon on {place} ends"), LIMIT, ended)
            }
        }
    }

    /// Addresses and directories are those of the lab.
    fn type_in(&self, place: Place, typed: &str) -> Result<()> {
        let home = self.farm.directory(place)?;
        let own = typed
            .replace("192.0.2.", "10.77.0.")
            .replace("/var/lib/farm", &home.join("data").display().to_string());
        let desk = self.scratch.path().join(place.to_string());
        fs::create_dir_all(&desk)?;
        let built = binaries::find("farmd")?;
        let mut shell = self.farm.command(place, "sh")?;
        shell.args(["-ec", &own]).current_dir(&desk).env("HOME", &home).env("PROJECT", project());
        shell
            .env("SCRATCH", self.scratch.path().join("root"))
            .env("BUILT", built.parent().context("a directory")?);
        shell::run(&mut shell).map(drop)
    }
}

#[test]
fn who_follows_the_pages_for_operators_has_a_farm() -> Result<()> {
    let readers = Readers::new("documents")?;
    let index = text("docs/operate/README.md")?;
    let linked = index.split('(').skip(1).filter_map(|rest| rest.split_once(".md)"));
    let pages: Vec<String> = linked.map(|(page, _)| format!("docs/operate/{page}.md")).collect();
    let existing = fs::read_dir(project().join("docs/operate"))?.count();
    ensure!(pages.len() + 1 == existing, "{existing} pages, and the index has {pages:?}");
    pages.iter().try_for_each(|page| readers.follow(page))?;
    // The last of them takes this node out.
    for (program, args) in [("ip", &["address", "show", "dev", "lo"][..]), ("nft", &["list", "tables"])] {
        let left = shell::run(readers.farm.command(Place::Node(3), program)?.args(args))?;
        ensure!(!left.contains("10.77") && !left.contains("farm"), "{program}: {left}");
    }
    Ok(())
}

#[test]
fn who_follows_the_first_page_has_a_farm() -> Result<()> {
    Readers::new("readme")?.follow("README.md")
}

#[test]
fn a_prompt_tells_where_a_command_is_typed() {
    let page = "# Title\n```\nnode2# farmctl node leave  # or not\nsaid by it # 1\n# make build\n```\n# no\n";
    let command = |line, at, typed| Command { line, at, typed };
    let expected = [command(3, Some(Place::Node(2)), "farmctl node leave"), command(5, None, "make build")];
    assert_eq!(commands(page), expected);
}
