//! What a stranger announces is not what is allocated: the largest single allocation while hostile lengths are read.
//!
//! The one `unsafe` of this crate, and only in a test: an allocator cannot be watched otherwise. It forwards every call
//! unchanged to the system's.
#![allow(unsafe_code, reason = "`GlobalAlloc` is an unsafe trait; see above")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use myelin_wire::frame::{FLAG_SKIPPABLE, FrameHeader};
use myelin_wire::message::MessageDecoder;
use myelin_wire::stream::{DataDecoder, Item};
use myelin_wire::{FrameType, Limits};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

static LARGEST_BYTES: AtomicUsize = AtomicUsize::new(0);

struct Watched;

// SAFETY: every method hands its arguments on to `System`, which keeps the contract.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST_BYTES.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST_BYTES.fetch_max(size, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

/// Room of a decoder that nobody announced: its buffer's step, and an error's sentence.
const SLACK_BYTES: usize = 128 * 1024;

fn largest_bytes(run: impl FnOnce()) -> usize {
    LARGEST_BYTES.store(0, Ordering::Relaxed);
    run();
    LARGEST_BYTES.load(Ordering::Relaxed)
}

fn control(kind: FrameType, body: &[u8]) -> Vec<u8> {
    let mut frame = FrameHeader::new(kind, body.len().try_into().unwrap()).to_bytes().to_vec();
    frame.extend_from_slice(body);
    frame
}

/// One test only: the figure is the process's.
#[test]
fn announced_lengths_are_checked_before_anything_is_allocated() {
    let huge_array = [&[0x82, 0xa3][..], b"seq", &[1, 0xaa], b"exceptions", &[0xdd, 0xff, 0xff, 0xff, 0xff]].concat();
    let huge_text = [&[0x82, 0xa2][..], b"id", &[1, 0xa7], b"pattern", &[0xdb, 0xff, 0xff, 0xff, 0xff]].concat();
    let huge_map = vec![0xdf, 0xff, 0xff, 0xff, 0xff];
    let deep = [&[0x81, 0xa1, b'x'][..], &[0x91; 60_000]].concat();
    let bodies = [
        (FrameType::Ack, huge_array),
        (FrameType::Subscribe, huge_text),
        (FrameType::Hello, huge_map),
        (FrameType::Hello, deep),
    ];
    for (kind, body) in bodies {
        let frame = control(kind, &body);
        let largest = largest_bytes(|| {
            let mut decoder = MessageDecoder::new();
            decoder.push(&frame);
            decoder.poll().unwrap_err();
        });
        // serde makes room for at most 1 MiB of announced elements.
        assert!(largest <= 1024 * 1024 + SLACK_BYTES, "{kind:?} makes {largest} bytes");
    }

    let limits = Limits { payload_bytes: 256 * 1024, ..Limits::default() };
    let event_bytes_max = limits.event_len_max() as usize + 4;
    for len in [7, 1000, limits.event_len_max(), limits.event_len_max() + 1, 60 * 1024 * 1024] {
        let mut stream = FrameHeader::new(FrameType::Events, 64 * 1024 * 1024).to_bytes().to_vec();
        stream.extend_from_slice(&[&len.to_le_bytes()[..], &[0; 7]].concat());
        let mut oversized = false;
        let (mut events, mut missing) = (0, len as usize - 7);
        let largest = largest_bytes(|| {
            let mut decoder = DataDecoder::new(FrameType::Events, limits.event_len_max());
            decoder.push(&stream);
            // A megabyte of the event comes; the reader takes what was parsed, as a router does.
            for _ in 0..256 {
                while let Some(item) = decoder.poll().unwrap() {
                    oversized |= matches!(item, Item::Oversized(_));
                    events += 1;
                }
                decoder.discard();
                let piece = missing.min(4096);
                decoder.push(&[b'x'; 4096][..piece]);
                missing -= piece;
            }
        });
        assert_eq!(events, 1, "an event of {len}");
        assert_eq!(oversized, len > limits.event_len_max());
        assert!(largest <= event_bytes_max + SLACK_BYTES, "an event of {len} makes {largest} bytes");
    }

    let skipped = FrameHeader { body_len: 64 * 1024 * 1024, kind: 0x3f, flags: FLAG_SKIPPABLE }.to_bytes();
    let largest = largest_bytes(|| {
        let mut decoder = DataDecoder::new(FrameType::Events, limits.event_len_max());
        decoder.push(&skipped);
        for _ in 0..1024 {
            assert_eq!(decoder.poll(), Ok(None));
            decoder.discard();
            decoder.push(&[0; 4096]);
        }
    });
    assert!(largest <= SLACK_BYTES, "a skipped frame makes {largest} bytes");
}
