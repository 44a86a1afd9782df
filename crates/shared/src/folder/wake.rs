//! How processes wake each other: each session has a socket, and a byte sent to it says that something has changed for
//! one of its waiters. A byte that is lost costs time and nothing else: every waiter has a timer as well.

use std::fs::{self, File, Permissions};
use std::io;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// The longest path that a socket's address has room for, with some to spare.
const ADDRESS_MAX: usize = 100;

/// This session's socket, and the way to those of the others.
#[derive(Debug)]
pub(super) struct WakeSocket {
    /// `None` where there can be no socket: then waiters have their timers alone.
    socket: Option<Arc<UnixDatagram>>,
    /// The sessions' folder, for addresses that are too long.
    folder: File,
    is_over: Arc<AtomicBool>,
    listens: AtomicBool,
}

impl WakeSocket {
    pub(super) fn bind(own: &Path, mode: u32) -> io::Result<Self> {
        let folder = File::open(own.parent().unwrap_or(Path::new(".")))?;
        let _ = fs::remove_file(own);
        let socket = UnixDatagram::bind(address(&folder, own)).ok();
        if socket.is_some() {
            let _ = fs::set_permissions(own, Permissions::from_mode(mode));
        }
        Ok(Self {
            socket: socket.map(Arc::new),
            folder,
            is_over: Arc::default(),
            listens: AtomicBool::new(false),
        })
    }

    /// Calls `woken` in a thread, whenever another session wakes this one, until the socket is dropped. The first call
    /// starts the thread; `false` if the system refuses it.
    pub(super) fn listen(&self, woken: impl Fn() + Send + 'static) -> bool {
        let Some(socket) = &self.socket else { return false };
        if self.listens.swap(true, Ordering::Relaxed) {
            return true;
        }
        let (socket, is_over) = (Arc::clone(socket), Arc::clone(&self.is_over));
        let thread = thread::Builder::new().name("shared-rate-limit".to_owned());
        let started = thread.spawn(move || {
            let mut bytes = [0; 16];
            while socket.recv(&mut bytes).is_ok() || !is_over.load(Ordering::Relaxed) {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                woken();
            }
        });
        if started.is_err() {
            self.listens.store(false, Ordering::Relaxed);
        }
        started.is_ok()
    }

    /// Wakes another session, if it listens.
    pub(super) fn wake(&self, other: &Path) {
        if let Some(socket) = &self.socket {
            // Its socket is full: then it has been woken and has not looked yet. It is gone: nobody is there.
            let _ = send(socket, &address(&self.folder, other));
        }
    }
}

impl Drop for WakeSocket {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(socket) = &self.socket {
            // The thread that listens hears that there is nothing more to come.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

fn send(socket: &UnixDatagram, address: &Path) -> io::Result<()> {
    use rustix::net::{SendFlags, SocketAddrUnix, sendto};

    let address = SocketAddrUnix::new(address)?;
    sendto(socket, &[1], SendFlags::DONTWAIT, &address)?;
    Ok(())
}

/// A socket's address. Where the path is too long for one, the way through the folder that is open.
fn address(folder: &File, path: &Path) -> PathBuf {
    match path.file_name() {
        Some(name) if path.as_os_str().len() > ADDRESS_MAX => {
            Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name)
        }
        _ => path.to_owned(),
    }
}
