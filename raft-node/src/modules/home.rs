//! Where a module lives on this node: its files by revision, what its scripts write, its log, what is remembered of it.
//!
//! ```text
//! DATA/modules/NAME/memory.json                                 what is remembered
//!                   token                                         shows that a script is one of the module's
//!                   revision-17/module.toml, bin/start_both, …    what revision 17 says
//!                   var/                                          for the scripts (FARM_VAR)
//!                   log/                                          the application log
//! ```

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use farm_core::model::ModuleName;
use farm_module::Files;

use super::Token;

/// Files of a revision: readable, and executable where they were.
const MODE_FILE: u32 = 0o644;
const MODE_PROGRAM: u32 = 0o755;
/// Directories of a revision, and what leads there: applications give up their rights, and find their files all the same.
const MODE_OPEN: u32 = 0o755;
const MODE_PASSAGE: u32 = 0o711;
/// What is nobody else's business.
const MODE_CLOSED: u32 = 0o700;

/// The directory of one module.
#[derive(Clone, Debug)]
pub struct Home(PathBuf);

impl Home {
    /// Below the daemon's `data_dir`.
    #[must_use]
    pub fn of(data_dir: &Path, name: &ModuleName) -> Self {
        Self(data_dir.join("modules").join(&name.0))
    }

    /// What is remembered.
    #[must_use]
    pub fn memory(&self) -> PathBuf {
        self.0.join("memory.json")
    }

    /// The application log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    /// What scripts may write.
    #[must_use]
    pub fn var(&self) -> PathBuf {
        self.0.join("var")
    }

    /// The files of a revision.
    #[must_use]
    pub fn revision(&self, number: u64) -> PathBuf {
        self.0.join(format!("revision-{number}"))
    }

    /// Makes the directories, with their rights.
    ///
    /// # Errors
    /// Of the file system.
    pub fn make(&self) -> io::Result<()> {
        let all = self.0.parent().unwrap_or(&self.0);
        fs::create_dir_all(all)?;
        if let Some(data) = all.parent() {
            // What else is in there has rights of its own.
            let mode = fs::metadata(data)?.permissions().mode();
            fs::set_permissions(data, Permissions::from_mode(mode | MODE_PASSAGE & 0o011))?;
        }
        for (directory, mode) in [
            (all, MODE_PASSAGE),
            (self.0.as_path(), MODE_PASSAGE),
            (self.log().as_path(), MODE_CLOSED),
            (self.var().as_path(), MODE_OPEN),
        ] {
            make_directory(directory, mode)?;
        }
        Ok(())
    }

    /// What shows that a script is one of the module's: the same for all runs of the daemon, since scripts outlive them.
    ///
    /// # Errors
    /// Of the file system, or where the machine gives no random numbers.
    pub fn token(&self) -> io::Result<Token> {
        let path = self.0.join("token");
        match fs::read(&path).map(Token::try_from) {
            Ok(Ok(token)) => return Ok(token),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            // Cut short by a power cut: nobody has it.
            Ok(Err(_)) => fs::remove_file(&path)?,
            Err(_) => {}
        }
        let mut token = Token::default();
        getrandom::fill(&mut token).map_err(io::Error::other)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(&token)?;
        file.sync_all()?;
        Ok(token)
    }

    /// Writes the files of a revision, all or none: a half written directory never has its name.
    ///
    /// # Errors
    /// Of the file system.
    pub fn write(&self, number: u64, files: &Files) -> io::Result<PathBuf> {
        let place = self.revision(number);
        if is_as_in(&place, files) {
            return Ok(place);
        }
        let fresh = place.with_extension("new");
        remove_directory(&fresh)?;
        make_directory(&fresh, MODE_OPEN)?;
        for (path, file) in &files.0 {
            let at = fresh.join(path);
            let above: Vec<&Path> = at.ancestors().skip(1).take_while(|above| *above != fresh).collect();
            above.into_iter().rev().try_for_each(|directory| make_directory(directory, MODE_OPEN))?;
            let mut written = File::create(&at)?;
            written.write_all(&file.bytes)?;
            written.set_permissions(Permissions::from_mode(mode_of(file)))?;
            // After a power cut the name may be there and the bytes not.
            written.sync_all()?;
        }
        remove_directory(&place)?;
        fs::rename(&fresh, &place)?;
        File::open(&self.0)?.sync_all()?;
        Ok(place)
    }

    /// Removes revisions of which nothing runs and that the cluster does not keep any more.
    pub fn tidy(&self, keep: &[u64]) {
        let Ok(entries) = fs::read_dir(&self.0) else { return };
        let number = |name: &std::ffi::OsStr| name.to_str()?.strip_prefix("revision-")?.parse::<u64>().ok();
        for entry in entries.flatten() {
            if number(&entry.file_name()).is_some_and(|number| !keep.contains(&number)) {
                // What stays takes room and nothing else.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// Removes everything but the log: the module is no more.
    pub fn forget(&self) {
        let _ = fs::remove_file(self.memory());
        let _ = fs::remove_file(self.0.join("token"));
        self.tidy(&[]);
        let _ = fs::remove_dir_all(self.var());
    }
}

fn mode_of(file: &farm_module::File) -> u32 {
    if file.executable { MODE_PROGRAM } else { MODE_FILE }
}

/// Whatever mask the daemon has.
fn make_directory(directory: &Path, mode: u32) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    fs::set_permissions(directory, Permissions::from_mode(mode))
}

fn remove_directory(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Whether the files are there, whole: a disk may have lost some of them, a person may have changed one.
fn is_as_in(place: &Path, files: &Files) -> bool {
    files.0.iter().all(|(path, file)| {
        let at = place.join(path);
        let mode = fs::metadata(&at).map(|m| m.permissions().mode() & 0o777);
        mode.is_ok_and(|mode| mode == mode_of(file)) && fs::read(&at).is_ok_and(|bytes| bytes == file.bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(script: &str) -> Files {
        let file = |text: &str, executable| farm_module::File { bytes: text.into(), executable };
        let all = [("module.toml", file("kind = \"light\"\n", false)), ("bin/lib/start", file(script, true))];
        Files(all.into_iter().map(|(path, file)| (path.to_owned(), file)).collect())
    }

    #[test]
    fn a_revision_is_what_was_applied_whatever_happened_to_its_directory() {
        let data = tempfile::tempdir().unwrap();
        let home = Home::of(data.path(), &ModuleName("web".into()));
        home.make().unwrap();
        let place = home.write(7, &files("one")).unwrap();
        let script = place.join("bin/lib/start");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&script), mode(&place.join("bin/lib")), mode(&place)), (0o755, 0o755, 0o755));
        assert_eq!(mode(&home.log()), 0o700, "logs are nobody else's business");
        fs::write(&script, "").unwrap();
        home.write(7, &files("one")).unwrap();
        assert_eq!(
            fs::read_to_string(&script).unwrap(),
            "one",
            "what a power cut has emptied is written again"
        );
        fs::set_permissions(&script, Permissions::from_mode(0o644)).unwrap();
        home.write(7, &files("one")).unwrap();
        assert_eq!(mode(&script), 0o755);
    }

    #[test]
    fn the_token_stays_and_nobody_else_reads_it() {
        let data = tempfile::tempdir().unwrap();
        let home = Home::of(data.path(), &ModuleName("web".into()));
        home.make().unwrap();
        let token = home.token().unwrap();
        assert_eq!(home.token().unwrap(), token);
        let path = data.path().join("modules/web/token");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "short").unwrap();
        assert_ne!(home.token().unwrap(), token);
    }
}
