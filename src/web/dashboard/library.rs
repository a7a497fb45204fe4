//! The dashboards there are: those that are compiled in and those of a folder.
//!
//! The folder is read once for each configuration, so a reload reads it again.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::model::Dashboard;
use crate::config::Config;

/// The dashboards under the configuration in force.
pub struct Shelf {
    config: watch::Receiver<Arc<Config>>,
    read: Mutex<Option<(Arc<Config>, Arc<Library>)>>,
}

impl Shelf {
    /// Reads nothing yet.
    pub fn new(config: watch::Receiver<Arc<Config>>) -> Shelf {
        Shelf {
            config,
            read: Mutex::default(),
        }
    }

    /// What there is. Reads the folder, off the runtime, when the configuration is new.
    pub async fn library(&self) -> Arc<Library> {
        let config = Arc::clone(&self.config.borrow());
        if let Some((of, library)) = &*self.lock()
            && Arc::ptr_eq(of, &config)
        {
            return Arc::clone(library);
        }
        let folder = config.server.dashboards_dir.as_ref();
        let folder = folder.map(|folder| config.resolve(folder));
        let reading = tokio::task::spawn_blocking(move || {
            let mut library = Library::shipped();
            if let Some(folder) = folder {
                library.add_folder(&folder);
            }
            library
        });
        let library = Arc::new(reading.await.unwrap_or_else(|_| Library::shipped()));
        *self.lock() = Some((config, Arc::clone(&library)));
        library
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(Arc<Config>, Arc<Library>)>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All dashboards, and the files that are none.
#[derive(Default)]
pub struct Library {
    dashboards: Vec<Arc<Dashboard>>,
    broken: Vec<(String, String)>,
}

const SHIPPED: [(&str, &str); 3] = [
    (
        "tenant-overview",
        include_str!(concat!(env!("OUT_DIR"), "/tenant-overview.json")),
    ),
    (
        "infrastructure",
        include_str!(concat!(env!("OUT_DIR"), "/infrastructure.json")),
    ),
    ("host", include_str!(concat!(env!("OUT_DIR"), "/host.json"))),
];

/// Files larger than this are no dashboards.
const FILE_BYTES_MAX: u64 = 8 << 20;

impl Library {
    /// The shipped dashboards.
    pub fn shipped() -> Library {
        let mut library = Library::default();
        for (name, source) in SHIPPED {
            library.add(name, source);
        }
        library
    }

    /// Adds the `*.json` of a folder, in the order of their names. A file that
    /// cannot be read is named by [`Library::broken`] and stops nothing.
    pub fn add_folder(&mut self, folder: &Path) {
        let mut files: Vec<_> = match std::fs::read_dir(folder) {
            Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
            Err(err) => {
                self.broken
                    .push((folder.display().to_string(), err.to_string()));
                return;
            }
        };
        files.retain(|file| file.extension().is_some_and(|ext| ext == "json"));
        files.sort_unstable();
        for file in files {
            let name = file
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let too_large = file.metadata().is_ok_and(|m| m.len() > FILE_BYTES_MAX);
            match std::fs::read(&file) {
                Ok(_) if too_large => self.broken.push((name, "larger than 8 MiB".to_owned())),
                Ok(bytes) => self.add(&name, &String::from_utf8_lossy(&bytes)),
                Err(err) => self.broken.push((name, err.to_string())),
            }
        }
    }

    /// Adds a file's text. A uid that is taken gets a number.
    pub fn add(&mut self, name: &str, source: &str) {
        match Dashboard::parse(source, name) {
            Ok(mut dashboard) => {
                let wished = dashboard.uid.clone();
                let mut number = 2;
                while self.get(&dashboard.uid).is_some() {
                    dashboard.uid = format!("{wished}-{number}");
                    number += 1;
                }
                self.dashboards.push(Arc::new(dashboard));
            }
            Err(error) => self.broken.push((name.to_owned(), error)),
        }
    }

    /// The dashboard of that uid.
    pub fn get(&self, uid: &str) -> Option<&Arc<Dashboard>> {
        self.dashboards.iter().find(|d| d.uid == uid)
    }

    /// All dashboards in order.
    pub fn list(&self) -> &[Arc<Dashboard>] {
        &self.dashboards
    }

    /// Files that are no dashboards, and why.
    pub fn broken(&self) -> &[(String, String)] {
        &self.broken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_files_are_dashboards() {
        let library = Library::shipped();
        assert!(library.broken().is_empty(), "{:?}", library.broken());
        let uids: Vec<&str> = library.list().iter().map(|d| d.uid.as_str()).collect();
        assert_eq!(uids, ["tenant-overview", "infrastructure", "host"]);
    }

    #[tokio::test]
    async fn a_reload_reads_the_folder_again() {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("[server]\ndashboards_dir = {:?}\n", folder.path());
        let config = || Arc::new(Config::parse(&text, "c.toml").unwrap());
        let (in_force, seen) = watch::channel(config());
        let shelf = Shelf::new(seen);
        let has = async |uid: &str| shelf.library().await.get(uid).is_some();
        assert!(!has("own").await);
        let source = r#"{"uid": "own", "panels": []}"#;
        std::fs::write(folder.path().join("a.json"), source).unwrap();
        assert!(!has("own").await);
        in_force.send_replace(config());
        assert!(has("own").await && has("host").await);
    }

    #[test]
    fn a_taken_uid_gets_a_number_and_a_bad_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join("a.json"),
            r#"{"uid": "host", "panels": []}"#,
        )
        .unwrap();
        std::fs::write(folder.path().join("b.json"), "{").unwrap();
        std::fs::write(folder.path().join("c.txt"), "{").unwrap();
        let mut library = Library::shipped();
        library.add_folder(folder.path());
        assert!(library.get("host-2").is_some());
        assert_eq!(library.broken().len(), 1);
        assert_eq!(library.broken()[0].0, "b");
    }
}
