//! Memory that is written to a file when the process crashes or is asked to by SIGQUIT, by the signal's handler itself: it does
//! not need a worker that still runs.
//!
//! SIGQUIT writes and the process goes on, as a JVM does: an operator who wants to see the last moments of a server in production
//! must not have to end it. What ends a server are SIGTERM and SIGINT, as for Redis, which has no handler for SIGQUIT.
//!
//! The handler calls only what POSIX lists as safe there: `open`, `write`, `close`, `rename`, `sigaction`, `raise`. It takes no lock
//! and allocates nothing. The file is written beside its place and then takes it, so that it is never half of one. What
//! crashes while one is written writes none.
//!
//! The file: the parts one after the other, then 8 bytes of a hash of them ([`checked`]).

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

use libc::{c_int, c_void, siginfo_t};

/// One piece of what is written.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    /// In whole words.
    Bytes(&'static [u8]),
    /// Written by others meanwhile; read in this order.
    Words(&'static [AtomicU64]),
}

/// What ends the process.
const CRASHES: [c_int; 5] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT];

struct Target {
    path: CString,
    beside: CString,
}

struct Plan {
    crash: Target,
    request: Target,
    parts: Vec<Part>,
    /// What was in force for [`CRASHES`].
    before: Vec<libc::sigaction>,
}

static PLAN: OnceLock<Plan> = OnceLock::new();
/// A file is being written.
static BUSY: AtomicBool = AtomicBool::new(false);
/// A signal has written that of a crash: one that comes of writing it does not write it anew.
static CRASHED: AtomicBool = AtomicBool::new(false);

/// From now on the parts are written to `crash` at a signal that ends the process and at every panic, and to `request` at
/// SIGQUIT. Whether a panic is caught is not known while it is told, so one that is leaves the file to who comes after it.
///
/// # Errors
/// What the system says; a path with a zero byte; if it was called before.
pub fn install(crash: &Path, request: &Path, parts: Vec<Part>) -> io::Result<()> {
    let target = |path: &Path| {
        let bytes = path.as_os_str().as_bytes();
        Ok::<_, io::Error>(Target { path: CString::new(bytes)?, beside: CString::new([bytes, b".new"].concat())? })
    };
    let mut before = Vec::new();
    for signal in CRASHES {
        // SAFETY: all zeroes is a valid `sigaction`, which the call fills in.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: `action` is ours and lives across the call, which only reads what is in force.
        check(unsafe { libc::sigaction(signal, std::ptr::null(), &mut action) })?;
        before.push(action);
    }
    let plan = Plan { crash: target(crash)?, request: target(request)?, parts, before };
    PLAN.set(plan).map_err(|_| io::Error::other("a dump is installed once"))?;
    for signal in CRASHES.into_iter().chain([libc::SIGQUIT]) {
        // SAFETY: all zeroes is a valid `sigaction`.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_signal as *const () as usize;
        // On the stack that the standard library gives every thread for this: a stack overflow is a crash, too.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
        // SAFETY: `action` is a whole one whose handler has the signature that SA_SIGINFO asks for.
        check(unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) })?;
    }
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        if let Some(plan) = PLAN.get() {
            write(&plan.crash, &plan.parts);
        }
    }));
    Ok(())
}

fn check(result: c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

extern "C" fn on_signal(signal: c_int, info: *mut siginfo_t, _context: *mut c_void) {
    // SAFETY: the location of this thread's `errno` is always valid.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above. What was interrupted must find it as it was.
    let saved = unsafe { *errno };
    if signal == libc::SIGQUIT {
        if let Some(plan) = PLAN.get() {
            write(&plan.request, &plan.parts);
        }
    } else {
        write_crash();
        // SAFETY: with SA_SIGINFO the kernel passes a valid pointer.
        let code = unsafe { (*info).si_code };
        end_by(signal, code > 0);
    }
    // SAFETY: as above.
    unsafe { *errno = saved };
}

/// Has the signal do what it did before us once the handler has returned: a `fault` happens again by itself, what was sent by
/// `kill` or `abort` is raised again and ends the process as if nobody had listened.
fn end_by(signal: c_int, fault: bool) {
    // SAFETY: all zeroes is SIG_DFL without flags.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    let before = PLAN.get().map(|plan| &plan.before);
    if fault
        && let Some(at) = CRASHES.iter().position(|crash| *crash == signal)
        && let Some(known) = before.and_then(|before| before.get(at))
    {
        action = *known;
    }
    // SAFETY: `action` is a valid one: the default, or one that was in force before.
    unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) };
    if !fault {
        // SAFETY: `raise` may be called in a handler. The signal is blocked here and arrives when it returns.
        unsafe { libc::raise(signal) };
    }
}

fn write_crash() {
    if let Some(plan) = PLAN.get()
        && !CRASHED.swap(true, Ordering::SeqCst)
    {
        write(&plan.crash, &plan.parts);
    }
}

/// Words that are copied before they are written: small, since the stack of a handler is.
const CHUNK_WORDS: usize = 256;

/// A file under way. Of what goes wrong nobody can be told.
struct Output {
    file: c_int,
    hash: u64,
    failed: bool,
}

impl Output {
    fn put(&mut self, words: &[u64]) {
        for word in words {
            self.hash = hashed(self.hash, *word);
        }
        self.put_raw(words);
    }

    fn put_raw(&mut self, words: &[u64]) {
        let bytes: &[u8] = bytemuck::cast_slice(words);
        let mut at = 0;
        while at < bytes.len() && !self.failed {
            let rest = &bytes[at..];
            // SAFETY: `rest` is valid for reads of its length; the descriptor was opened by us.
            match unsafe { libc::write(self.file, rest.as_ptr().cast(), rest.len()) } {
                written if written > 0 => at += written as usize,
                // SAFETY: the location of this thread's `errno` is always valid.
                _ => self.failed = unsafe { *libc::__errno_location() } != libc::EINTR,
            }
        }
    }
}

fn write(target: &Target, parts: &[Part]) {
    if BUSY.swap(true, Ordering::SeqCst) {
        return;
    }
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_CLOEXEC;
    // SAFETY: the path is a C string that lives for ever. Keys may be in it: nobody else may read the file.
    let file = unsafe { libc::open(target.beside.as_ptr(), flags, 0o600) };
    if file >= 0 {
        let mut output = Output { file, hash: HASH_START, failed: false };
        parts.iter().for_each(|part| put_part(&mut output, part));
        let hash = output.hash;
        output.put_raw(&[hash]);
        let whole = !output.failed;
        // SAFETY: the descriptor is ours and is not used after this.
        unsafe { libc::close(file) };
        if whole {
            // SAFETY: both paths are C strings that live for ever.
            unsafe { libc::rename(target.beside.as_ptr(), target.path.as_ptr()) };
        }
    }
    BUSY.store(false, Ordering::SeqCst);
}

fn put_part(output: &mut Output, part: &Part) {
    let mut chunk = [0_u64; CHUNK_WORDS];
    match part {
        Part::Bytes(bytes) => {
            for words in bytes.chunks(size_of_val(&chunk)) {
                chunk = [0; CHUNK_WORDS];
                for (word, bytes) in chunk.iter_mut().zip(words.chunks(8)) {
                    let mut whole = [0; 8];
                    whole[..bytes.len()].copy_from_slice(bytes);
                    *word = u64::from_ne_bytes(whole);
                }
                output.put(&chunk[..words.len().div_ceil(8)]);
            }
        }
        Part::Words(words) => {
            for words in words.chunks(CHUNK_WORDS) {
                for (copy, word) in chunk.iter_mut().zip(words) {
                    *copy = word.load(Ordering::Acquire);
                }
                output.put(&chunk[..words.len()]);
            }
            // What is read after this is not older.
            fence(Ordering::Acquire);
        }
    }
}

/// FNV-1a (Fowler, Noll, Vo) over words.
const HASH_START: u64 = 0xcbf2_9ce4_8422_2325;

fn hashed(hash: u64, word: u64) -> u64 {
    (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3)
}

/// What was written, if the file is as it was; `None`: it is not whole, or damaged.
pub fn checked(file: &[u8]) -> Option<&[u8]> {
    let (content, hash) = file.split_last_chunk()?;
    let (words, []) = content.as_chunks::<8>() else { return None };
    let found = words.iter().fold(HASH_START, |hash, word| hashed(hash, u64::from_ne_bytes(*word)));
    (found == u64::from_ne_bytes(*hash)).then_some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_damage_is_seen() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| CString::new(dir.path().join(name).as_os_str().as_bytes()).expect("no zero");
        let target = Target { path: path("dump"), beside: path("dump.new") };
        let words: &'static [AtomicU64] = Vec::leak((0..1000).map(AtomicU64::new).collect());
        write(&target, &[Part::Bytes(b"eight888"), Part::Words(words)]);
        let file = std::fs::read(dir.path().join("dump")).expect("it was written");
        assert!(!dir.path().join("dump.new").exists());
        let content = checked(&file).expect("it is whole");
        assert_eq!((content.len(), &content[..8], content[16]), (8 + 8000, &b"eight888"[..], 1));
        let mut damaged = file.clone();
        damaged[500] ^= 1;
        assert_eq!(checked(&damaged), None);
        assert_eq!(checked(&file[..file.len() - 8]), None);
        assert_eq!(checked(b""), None);
    }
}
