//! The log on the disk: segments of whole lines in one folder, each named by the number of its first line.

use super::chain::{Entry, Head, LINE_BYTES_MAX, Note, read};
use myelin_catalog::Digest;
use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Largest segment, in bytes: what is removed at a time, and what is read to find one line.
const SEGMENT_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// A log has at least so many segments before its oldest is removed.
const SEGMENTS_MIN: u64 = 4;
/// Lines among which the first entry is looked for.
const LOOKED_AT_MAX: usize = 1_000;
/// What the name of a segment ends with.
const SUFFIX: &str = ".jsonl";

/// A segment.
#[derive(Clone, Debug)]
struct Segment {
    first: u64,
    bytes: u64,
}

/// The log, open to be written.
#[derive(Debug)]
pub(super) struct Book {
    folder: PathBuf,
    bytes_max: u64,
    segments: VecDeque<Segment>,
    last: File,
    head: Head,
}

/// What was found in the last segment.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Bytes of a line that was not written to its end: the router was killed meanwhile.
    pub(super) torn_bytes: u64,
    /// Why the last segment does not verify.
    pub(super) fault: Option<String>,
    /// Its entries.
    pub(super) entries: Vec<Entry>,
}

impl Book {
    /// Opens or begins the log in `folder`, which takes about `bytes_max`.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub(super) fn open(folder: &Path, bytes_max: u64) -> io::Result<(Self, Found)> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut segments = segments(folder)?;
        let (mut found, mut head) = (Found::default(), Head::default());
        while let Some(mut segment) = segments.pop_back() {
            let path = path(folder, segment.first);
            let text = fs::read(&path)?;
            let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let torn_bytes = (text.len() - whole) as u64;
            found.torn_bytes += torn_bytes;
            if whole == 0 && !segments.is_empty() {
                // The router was killed before the first line of the segment was whole: the log ends with the one before.
                fs::remove_file(&path)?;
                continue;
            }
            if torn_bytes > 0 {
                OpenOptions::new().write(true).open(&path)?.set_len(whole as u64)?;
                segment.bytes = whole as u64;
            }
            head = examine(&String::from_utf8_lossy(&text[..whole]), segment.first, &mut found);
            segments.push_back(segment);
            break;
        }
        if segments.is_empty() {
            segments.push_back(Segment { first: 1, bytes: 0 });
        }
        let first = segments.back().map_or(1, |segment| segment.first);
        let last = open_segment(folder, first)?;
        Ok((Self { folder: folder.to_owned(), bytes_max, segments, last, head }, found))
    }

    /// Where the log ends.
    pub(super) fn head(&self) -> Head {
        self.head
    }

    /// Writes entries down; they are on the disk when it returns.
    ///
    /// # Errors
    /// When the disk says so. What was half written is taken back, so that the next attempt follows the same head.
    pub(super) fn append(&mut self, mut notes: Vec<Note>, at_unix_ms: u64) -> io::Result<()> {
        let (mut head, mut text) = lay(self.head, &notes, at_unix_ms);
        let last_bytes = self.segments.back().map_or(0, |last| last.bytes);
        if last_bytes > 0 && last_bytes + text.len() as u64 > self.segment_bytes_max() {
            self.begin_segment()?;
        }
        let old = self.old();
        if let Some(upto) = old.and_then(|count| self.before(count)) {
            notes.insert(0, Note::retirement(upto));
            (head, text) = lay(self.head, &notes, at_unix_ms);
        }
        let written = self.last.write_all(text.as_bytes()).and_then(|()| {
            myelin_failpoint::reach("audit-written");
            self.last.sync_data()
        });
        myelin_failpoint::reach("audit-synced");
        let Some(last) = self.segments.back_mut() else { return Ok(()) };
        if written.is_err() {
            let _ = self.last.set_len(last.bytes);
            return written;
        }
        last.bytes += text.len() as u64;
        self.head = head;
        self.remove(old.unwrap_or(0));
        Ok(())
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        let first = self.head.seq + 1;
        self.last = open_segment(&self.folder, first)?;
        self.segments.push_back(Segment { first, bytes: 0 });
        Ok(())
    }

    fn segment_bytes_max(&self) -> u64 {
        (self.bytes_max / SEGMENTS_MIN).clamp(LINE_BYTES_MAX as u64, SEGMENT_BYTES_MAX)
    }

    /// How many of the oldest segments are to go, so that a whole one has room: asked where one begins, whose first entry
    /// says so. None where there is room.
    fn old(&self) -> Option<usize> {
        let last = self.segments.back().filter(|last| last.bytes == 0)?;
        let mut bytes: u64 = self.segments.iter().map(|segment| segment.bytes).sum();
        let is_old = |segment: &&Segment| {
            let is_old = segment.first < last.first && bytes + self.segment_bytes_max() > self.bytes_max;
            bytes -= segment.bytes;
            is_old
        };
        Some(self.segments.iter().take_while(is_old).count()).filter(|count| *count > 0)
    }

    /// The head of the log before the segment `number`.
    fn before(&self, number: usize) -> Option<Head> {
        let segment = self.segments.get(number)?;
        if number + 1 == self.segments.len() {
            return Some(self.head);
        }
        // Where somebody has altered the line, nothing proves what was before it.
        let unknown = Head { seq: segment.first - 1, hash: Digest::ZERO };
        Some(
            first_line(&self.folder, segment)
                .ok()
                .flatten()
                .map_or(unknown, |entry| Head { seq: entry.seq - 1, hash: entry.prev }),
        )
    }

    /// Removes the oldest segments: the log says by then that they go.
    fn remove(&mut self, count: usize) {
        for _ in 0..count {
            let Some(oldest) = self.segments.front() else { return };
            if let Err(error) = fs::remove_file(path(&self.folder, oldest.first))
                && error.kind() != io::ErrorKind::NotFound
            {
                // Neither do later ones go: the log has no gap. The next segment's beginning tries again.
                return tracing::warn!(%error, first = oldest.first, "an old segment of the audit log stays");
            }
            self.segments.pop_front();
        }
    }
}

/// The lines of entries that follow `head`, and where the log ends then.
fn lay(mut head: Head, notes: &[Note], at_unix_ms: u64) -> (Head, String) {
    let mut text = String::new();
    for note in notes {
        let (next, line) = head.next(note.clone(), at_unix_ms);
        text.push_str(&line);
        text.push('\n');
        head = next;
    }
    (head, text)
}

/// The head of a segment whose first line has the number `first`. Where a line is not what was written, the log goes on
/// after the last one all the same: the fault stays to be seen.
fn examine(text: &str, first: u64, found: &mut Found) -> Head {
    let mut head: Option<Head> = None;
    for line in text.lines() {
        let mut next = match head {
            Some(head) => head,
            None => Head::before(line).unwrap_or(Head { seq: first.saturating_sub(1), hash: Digest::ZERO }),
        };
        match next.follow(line) {
            Ok(entry) => found.entries.push(entry),
            Err(fault) => {
                found.fault.get_or_insert_with(|| fault.to_string());
                next = Head { seq: next.seq + 1, hash: Digest::of(line.as_bytes()) };
            }
        }
        head = Some(next);
    }
    head.unwrap_or(Head { seq: first.saturating_sub(1), hash: Digest::ZERO })
}

fn open_segment(folder: &Path, first: u64) -> io::Result<File> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path(folder, first))?;
    // The name is to survive a power cut as well.
    File::open(folder)?.sync_all()?;
    Ok(file)
}

fn path(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:020}{SUFFIX}"))
}

/// The segments in a folder, oldest first. Other files are left alone.
fn segments(folder: &Path) -> io::Result<VecDeque<Segment>> {
    let mut found = Vec::new();
    for file in fs::read_dir(folder)? {
        let file = file?;
        let name = file.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)).and_then(|number| number.parse().ok());
        if let Some(first) = number {
            found.push(Segment { first, bytes: file.metadata()?.len() });
        }
    }
    found.sort_unstable_by_key(|segment| segment.first);
    Ok(found.into())
}

/// Whether there is a log in `folder`, be it without a line.
///
/// # Errors
/// When the folder cannot be read.
pub fn is_log(folder: &Path) -> io::Result<bool> {
    Ok(!segments(folder)?.is_empty())
}

/// The lines of the log in `folder` from number `from` on, as they were written. A line that is being written is left out;
/// one that is too long is cut, so that it is found wrong.
///
/// # Errors
/// When the folder or a segment cannot be read.
pub fn lines(folder: &Path, from: u64) -> io::Result<impl Iterator<Item = io::Result<String>> + use<>> {
    let segments = segments(folder)?;
    // The last one that begins before.
    let skipped = segments.iter().take_while(|segment| segment.first <= from).count().saturating_sub(1);
    let folder = folder.to_owned();
    let segments =
        segments.into_iter().skip(skipped).map(move |segment| match File::open(path(&folder, segment.first)) {
            Ok(file) => Ok((segment, BufReader::new(file))),
            Err(error) => Err(error),
        });
    let lines = segments.flat_map(move |opened| {
        let (segment, mut file) = match opened {
            Ok(opened) => opened,
            Err(error) => return Either::One(std::iter::once(Err(error))),
        };
        let mut skip = from.saturating_sub(segment.first);
        Either::Many(std::iter::from_fn(move || {
            loop {
                let mut line = Vec::new();
                match file.by_ref().take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line) {
                    Err(error) => return Some(Err(error)),
                    // The end of the segment, or a line that has none yet.
                    Ok(read) if read == 0 || (line.last() != Some(&b'\n') && read <= LINE_BYTES_MAX) => return None,
                    Ok(_) if skip > 0 => skip -= 1,
                    Ok(_) => {
                        line.pop();
                        return Some(Ok(String::from_utf8_lossy(&line).into_owned()));
                    }
                }
            }
        }))
    });
    Ok(lines)
}

enum Either<A, B> {
    One(A),
    Many(B),
}

impl<T, A: Iterator<Item = T>, B: Iterator<Item = T>> Iterator for Either<A, B> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        match self {
            Self::One(one) => one.next(),
            Self::Many(many) => many.next(),
        }
    }
}

/// Where the log in `folder` was when its last entry had the number `seq`; none where that is not kept.
///
/// # Errors
/// When it cannot be read.
pub(super) fn head_at(folder: &Path, seq: u64) -> io::Result<Option<Head>> {
    let Some(line) = lines(folder, seq)?.next().transpose()? else { return Ok(None) };
    let is_it = read(&line).is_ok_and(|entry| entry.seq == seq);
    Ok(is_it.then(|| Head { seq, hash: Digest::of(line.as_bytes()) }))
}

/// The first entry of a segment; none where its line is not whole, or no entry.
fn first_line(folder: &Path, segment: &Segment) -> io::Result<Option<Entry>> {
    let mut line = String::new();
    let file = File::open(path(folder, segment.first))?;
    BufReader::new(file).take(LINE_BYTES_MAX as u64 + 1).read_line(&mut line)?;
    Ok(line.strip_suffix('\n').and_then(|line| read(line).ok()))
}

/// The first entry that is kept. The oldest segment may be removed meanwhile, and somebody may have altered its lines: then
/// it is the first that can be read.
pub(super) fn first(folder: &Path) -> Option<Entry> {
    lines(folder, 0).ok()?.take(LOOKED_AT_MAX).find_map(|line| read(&line.ok()?).ok())
}

/// Up to where the log was given up for its age the last time: the first entry of a segment says so.
///
/// # Errors
/// When the folder cannot be read.
pub(super) fn retired(folder: &Path) -> io::Result<Option<Head>> {
    let of = |segment: &Segment| first_line(folder, segment).ok().flatten()?.note.retired();
    Ok(segments(folder)?.iter().rev().find_map(of))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::super::chain::{Kind, verify};
    use super::*;

    fn note(number: u64) -> Note {
        Note::new(Kind::Admin, "token", format!("PUT /v1/bindings/{number}"), "ok")
    }

    fn write(book: &mut Book, count: u64) {
        (0..count).for_each(|number| book.append(vec![note(number), note(number)], 1).unwrap());
    }

    #[test]
    fn what_was_written_is_read_again_in_order_and_goes_on_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let (mut book, found) = Book::open(folder.path(), 1 << 20).unwrap();
        assert!(found.entries.is_empty() && found.fault.is_none());
        write(&mut book, 5);
        let head = book.head();
        drop(book);
        let (mut book, found) = Book::open(folder.path(), 1 << 20).unwrap();
        assert_eq!((book.head(), found.entries.len(), found.torn_bytes), (head, 10, 0));
        write(&mut book, 1);
        let verified = verify(lines(folder.path(), 0).unwrap()).unwrap();
        assert_eq!((verified.first, verified.head, verified.fault), (1, book.head(), None));
        assert_eq!(head_at(folder.path(), 10).unwrap(), Some(head));
        assert_eq!(head_at(folder.path(), 13).unwrap(), None);
        assert_eq!(lines(folder.path(), 8).unwrap().count(), 5, "8 to 12");
    }

    #[test]
    fn a_line_that_was_cut_off_by_a_crash_is_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let (mut book, _) = Book::open(folder.path(), 1 << 20).unwrap();
        write(&mut book, 2);
        let head = book.head();
        drop(book);
        let file = path(folder.path(), 1);
        let mut text = fs::read(&file).unwrap();
        text.extend_from_slice(br#"{"seq":5,"at_un"#);
        fs::write(&file, text).unwrap();
        assert_eq!(lines(folder.path(), 0).unwrap().count(), 4, "a reader leaves it out");
        let (mut book, found) = Book::open(folder.path(), 1 << 20).unwrap();
        assert_eq!((book.head(), found.torn_bytes, found.fault), (head, 15, None));
        write(&mut book, 1);
        assert_eq!(verify(lines(folder.path(), 0).unwrap()).unwrap().fault, None);
    }

    #[test]
    fn the_oldest_segments_go_and_the_rest_verifies() {
        let folder = tempfile::tempdir().unwrap();
        let (mut book, _) = Book::open(folder.path(), 64 * 1024).unwrap();
        write(&mut book, 600);
        let kept = segments(folder.path()).unwrap();
        assert!(kept.len() > 1 && kept.iter().map(|segment| segment.bytes).sum::<u64>() <= 64 * 1024);
        let verified = verify(lines(folder.path(), 0).unwrap()).unwrap();
        assert!(verified.first > 1);
        assert_eq!((verified.first, verified.head, verified.fault), (kept[0].first, book.head(), None));
        assert_eq!(head_at(folder.path(), 1).unwrap(), None, "it is not kept");
        // An entry that is kept says that the others were given up, and after which one the log begins.
        let (begin, upto) = (first(folder.path()).unwrap(), retired(folder.path()).unwrap().unwrap());
        assert!(upto.lets_begin(begin.seq, begin.prev) && !verified.is_cut, "{upto:?} {begin:?}");
        assert_eq!((upto.seq + 1, upto.hash), (begin.seq, begin.prev));
        fs::remove_file(path(folder.path(), kept[0].first)).unwrap();
        let verified = verify(lines(folder.path(), 0).unwrap()).unwrap();
        assert_eq!((verified.first, verified.fault, verified.is_cut), (kept[1].first, None, true));
        assert!(!upto.lets_begin(kept[1].first, first(folder.path()).unwrap().prev));
    }

    #[test]
    fn a_segment_that_a_crash_left_without_a_line_does_not_break_the_chain() {
        let folder = tempfile::tempdir().unwrap();
        let (mut book, _) = Book::open(folder.path(), 1 << 20).unwrap();
        write(&mut book, 2);
        let head = book.head();
        book.begin_segment().unwrap();
        drop(book);
        for torn in ["", r#"{"seq":5,"at_un"#] {
            fs::write(path(folder.path(), 5), torn).unwrap();
            let (book, found) = Book::open(folder.path(), 1 << 20).unwrap();
            assert_eq!((book.head(), found.torn_bytes, found.fault), (head, torn.len() as u64, None));
        }
        let (mut book, _) = Book::open(folder.path(), 1 << 20).unwrap();
        write(&mut book, 1);
        assert_eq!(verify(lines(folder.path(), 0).unwrap()).unwrap().fault, None);
    }

    #[test]
    fn a_log_that_was_touched_is_told_and_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let (mut book, _) = Book::open(folder.path(), 1 << 20).unwrap();
        write(&mut book, 3);
        drop(book);
        let file = path(folder.path(), 1);
        let text = fs::read_to_string(&file).unwrap().replacen("bindings/1", "bindings/9", 1);
        fs::write(&file, text).unwrap();
        let (mut book, found) = Book::open(folder.path(), 1 << 20).unwrap();
        assert!(found.fault.unwrap().contains("entry 4"), "the line after the one that was touched");
        write(&mut book, 1);
        let fault = verify(lines(folder.path(), 0).unwrap()).unwrap().fault.unwrap();
        assert_eq!(fault.seq, 4, "{fault}");
    }
}
