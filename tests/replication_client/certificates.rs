//! A certificate authority of our own, by the openssl command.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

pub struct Authority {
    folder: TempDir,
}

impl Authority {
    pub fn new() -> Authority {
        let authority = Authority { folder: tempfile::tempdir().unwrap() };
        for name in ["ca", "other"] {
            authority.openssl(&format!(
                "req -new -x509 -days 30 -nodes -newkey rsa:2048 -sha256 -subj /CN={name} \
                 -keyout {name}.key -out {name}.crt"
            ));
        }
        authority
    }

    fn openssl(&self, arguments: &str) {
        let out = Command::new("openssl")
            .args(arguments.split_whitespace())
            .current_dir(self.folder.path())
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }

    /// A certificate signed with `digest`; its files are NAME.crt and NAME.key.
    pub fn issue(&self, name: &str, key: &str, digest: &str, alternative: Option<&str>) {
        self.openssl(&format!(
            "req -new -nodes -newkey {key} -subj /CN={name} -keyout {name}.key -out {name}.csr"
        ));
        let extensions = alternative.map_or_else(
            || "basicConstraints=CA:FALSE\n".to_owned(),
            |name| format!("subjectAltName={name}\n"),
        );
        fs::write(self.path("ext"), extensions).unwrap();
        self.openssl(&format!(
            "x509 -req -days 30 -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial \
             -{digest} -extfile ext -out {name}.crt"
        ));
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}
