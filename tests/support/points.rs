//! Where a daemon dies or is held, at a named point of its pipeline.

use std::path::PathBuf;

use unstale::pipeline::points::Point;

use super::{World, until};

/// Orders to the daemons of a world: each is obeyed once, by whoever comes by first.
#[derive(Clone)]
pub struct Points {
    pub folder: PathBuf,
}

impl World {
    /// Daemons that are started from here on obey these.
    pub fn points(&mut self) -> Points {
        let points = Points { folder: self.folder.path().join("points") };
        std::fs::create_dir_all(&points.folder).expect("a folder");
        self.points = Some(points.folder.clone());
        points
    }
}

impl Points {
    /// Kills who comes by.
    pub fn kill(&self, point: Point) {
        self.order(point, "kill");
    }

    /// Keeps who comes by, until told to go on.
    pub fn hold(&self, point: Point) {
        self.order(point, "hold");
    }

    /// Who is held goes on. (If nobody has come by, nobody will be held.)
    pub fn go_on(&self, point: Point) {
        for file in [self.file(point), self.file(point).with_extension("reached")] {
            match std::fs::remove_file(file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
                _ => {}
            }
        }
    }

    pub fn is_reached(&self, point: Point) -> bool {
        self.file(point).with_extension("reached").exists()
    }

    pub async fn until_reached(&self, point: Point) {
        until(&format!("the point {point:?}"), async || self.is_reached(point).then_some(())).await;
    }

    fn order(&self, point: Point, order: &str) {
        self.go_on(point);
        // Written elsewhere first: half an order is none.
        let draft = self.folder.join("draft");
        std::fs::write(&draft, order).expect("an order");
        std::fs::rename(draft, self.file(point)).expect("an order");
    }

    fn file(&self, point: Point) -> PathBuf {
        self.folder.join(point.as_str())
    }
}
