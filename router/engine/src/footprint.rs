//! Code that ran once.
//!
//! Most of the program's code is the compiler of filters, which a router never runs itself, and what reads the
//! configuration and starts the rest. The kernel maps 64 KiB around each page that was touched (`fault_around_bytes`), so
//! that a start leaves some 20 MiB of code in the process's resident set, of which a router at rest uses a quarter.

use std::ffi::c_void;
use std::{fs, io, ptr};

use rustix::mm::{Advice, madvise};

/// The end of the executable's path in a line of `/proc/self/maps` when its file was replaced while it ran.
const REPLACED: &str = " (deleted)";

/// Takes the program's own code out of the process's resident set; it comes back page by page as it is used, from the
/// page cache, at the price of a minor fault for each 64 KiB. Returns the bytes of the mappings.
///
/// Data is left alone: constants beside pointers were written to when the program was loaded.
///
/// # Errors
/// What the kernel says. Nothing but memory is at stake.
pub fn release_startup_code() -> io::Result<usize> {
    let program = std::env::current_exe()?;
    let program = program.to_string_lossy();
    let program = program.strip_suffix(REPLACED).unwrap_or(&program);
    let maps = fs::read_to_string("/proc/self/maps")?;
    let code = maps.lines().filter_map(|line| code_of(line, program));
    code.map(|(start, end)| release(start, end)).sum()
}

/// The addresses in a line of `/proc/self/maps`, where it is code of `program` that nothing can have written to.
fn code_of(line: &str, program: &str) -> Option<(usize, usize)> {
    let mut fields = line.splitn(6, ' ');
    let (addresses, access) = (fields.next()?, fields.next()?);
    let path = fields.nth(3)?.trim_start();
    let path = path.strip_suffix(REPLACED).unwrap_or(path);
    if access != "r-xp" || path != program {
        return None;
    }
    let (start, end) = addresses.split_once('-')?;
    Some((usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
}

#[allow(unsafe_code, reason = "reviewed: see the comment within")]
fn release(start: usize, end: usize) -> io::Result<usize> {
    let at: *mut c_void = ptr::without_provenance_mut(start);
    // SAFETY: `MADV_DONTNEED` drops the pages of a private mapping, which are read anew from the file when they are
    // next used (madvise(2)). That loses what was written to them, and these were never writable: `code_of` takes
    // mappings of the program's file that are read and executed only, and position-independent code has no relocations
    // in them.
    unsafe { madvise(at, end - start, Advice::LinuxDontNeed)? };
    Ok(end - start)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    #[test]
    fn only_the_programs_own_code_is_meant() {
        let line = |access, path| format!("55e8e33ff000-55e8e53c5000 {access} 009fb000 fe:00 5311839          {path}");
        let meant = Some((0x55e8_e33f_f000, 0x55e8_e53c_5000));
        assert_eq!(code_of(&line("r-xp", "/usr/bin/my elin"), "/usr/bin/my elin"), meant);
        assert_eq!(code_of(&line("r-xp", "/usr/bin/myelin (deleted)"), "/usr/bin/myelin"), meant);
        for (access, path) in [("r--p", "/usr/bin/myelin"), ("rwxp", "/usr/bin/myelin"), ("r-xp", "/lib/libc.so.6")] {
            assert_eq!(code_of(&line(access, path), "/usr/bin/myelin"), None, "{access} {path}");
        }
        assert_eq!(code_of("7ffd3c5f6000-7ffd3c5f8000 r-xp 00000000 00:00 0", "/usr/bin/myelin"), None);
        assert_eq!(code_of("nonsense", "/usr/bin/myelin"), None);
    }

    #[test]
    fn code_that_was_released_still_runs() {
        let bytes = release_startup_code().unwrap();
        assert!(bytes > 64 << 10, "{bytes} bytes are all of this program's code");
        assert_eq!(release_startup_code().unwrap(), bytes);
    }
}
