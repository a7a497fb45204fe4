//! The dashboards there are: those that are compiled in and those of a folder.

use std::path::Path;
use std::sync::Arc;

use super::model::Dashboard;

/// All dashboards, and the files that are none. Read once.
#[derive(Default)]
pub struct Library {
    dashboards: Vec<Arc<Dashboard>>,
    broken: Vec<(String, String)>,
}

const SHIPPED: [(&str, &str); 3] = [
    (
        "tenant-overview",
        include_str!("../../../assets/dashboards/tenant-overview.json"),
    ),
    (
        "infrastructure",
        include_str!("../../../assets/dashboards/infrastructure.json"),
    ),
    ("host", include_str!("../../../assets/dashboards/host.json")),
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
        files.sort();
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
