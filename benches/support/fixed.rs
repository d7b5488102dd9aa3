//! A server that sends the same bytes whatever it is asked: what a request costs whoever answers it, for
//! the kernel, the way to and fro and wrk are the same.

use std::net::TcpListener;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// As many as webdis and the read API have.
const THREADS: usize = 2;

pub struct Fixed {
    pub port: u16,
    /// Its end ends the threads.
    accepting: tokio::task::JoinHandle<()>,
}

impl Fixed {
    pub fn start(answer: Vec<u8>) -> Fixed {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("a port").port();
        listener.set_nonblocking(true).expect("a listener that does not block");
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
        let answer: Arc<[u8]> = answer.into();
        let threads: [UnboundedSender<std::net::TcpStream>; THREADS] = std::array::from_fn(|_| {
            let (connections, taken) = unbounded_channel();
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || serve(taken, &answer));
            connections
        });
        let accepting = tokio::spawn(async move {
            for thread in threads.iter().cycle() {
                let (connection, _) = listener.accept().await.expect("a connection");
                _ = thread.send(connection.into_std().expect("a connection"));
            }
        });
        Fixed { port, accepting }
    }
}

impl Drop for Fixed {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn serve(mut connections: UnboundedReceiver<std::net::TcpStream>, answer: &Arc<[u8]>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    runtime.expect("a runtime").block_on(async {
        while let Some(connection) = connections.recv().await {
            connection.set_nodelay(true).expect("no delay");
            let connection = TcpStream::from_std(connection).expect("a connection");
            tokio::spawn(answer_all(connection, Arc::clone(answer)));
        }
    });
}

/// wrk asks again once it has been answered, and what it asks comes in one piece.
async fn answer_all(mut connection: TcpStream, answer: Arc<[u8]>) {
    let mut asked = [0; 4096];
    while connection.read(&mut asked).await.is_ok_and(|length| length > 0) {
        if connection.write_all(&answer).await.is_err() {
            return;
        }
    }
}
