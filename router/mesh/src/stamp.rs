//! The stamp: what a batch of events carries on its way through the mesh, besides itself.
//!
//! Little-endian: `u32 origin | u32 epoch | u8 shard | u8 hops | u8 flags | u8 grants | u64 seq | u64 generation |
//! u32 ttl-ms | u64 sites | [u64 allowed] | [u64 sites, from 64 on] | [u64 allowed, from 64 on] |
//! [u8 more, more * (u64 sites, [u64 allowed]), from 128 on] | grants * (u32 group, u16 site)`. What is optional is there
//! where a flag says so: a mesh of up to 64 sites never writes the second halves, and one of up to 128 nothing after them,
//! so that it writes what routers do that know no others. Those close a link by which a stamp with the last flag comes.

use smallvec::SmallVec;

use crate::ids::{RouterNumber, SiteNumber};
use crate::limits::{GRANTS_MAX, HOPS_MAX, SITES_NARROW};
use crate::site_set::SiteSet;
use crate::violation::{Violation, ViolationCode};

/// Bytes of a stamp without what is optional in it.
pub const STAMP_BYTES_MIN: usize = 40;
/// Bytes of the longest stamp.
pub const STAMP_BYTES_MAX: usize =
    STAMP_BYTES_MIN + (2 * SiteSet::WORDS_MAX - 1) * WORD_BYTES + MORE_BYTES + GRANTS_MAX * GRANT_BYTES;
const GRANT_BYTES: usize = 6;
/// Bytes of one word of a set of sites.
const WORD_BYTES: usize = 8;
/// Bytes of the number of words from site 128 on.
const MORE_BYTES: usize = 1;
/// Words of a set below site 64, and below site 128.
const NARROW_WORDS: usize = 1;
const WIDE_WORDS: usize = SITES_NARROW / 64;

/// Flag: deliver where this arrives, and send it to nobody.
const FLAG_HERE_ONLY: u8 = 1;
/// Flag: the set of allowed sites is there.
const FLAG_ALLOWED: u8 = 2;
/// Flag: the second words of the sets are there.
const FLAG_WIDE: u8 = 4;
/// Flag: words from site 128 on are there; never without [`FLAG_WIDE`].
const FLAG_LONG: u8 = 8;

/// A queue group that is served at one site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Grant {
    /// [`crate::interest::group_id`] of it.
    pub group: u32,
    /// Where.
    pub site: SiteNumber,
}

/// The grants of an event; most events have none.
pub type Grants = SmallVec<[Grant; 2]>;

/// Where a batch came from, who decided about it, and where it goes. The n-th event of the batch (from 0) has
/// `seq + n`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The router at which the events were published.
    pub origin: RouterNumber,
    /// How often that router had started.
    pub epoch: u32,
    /// The worker of that router.
    pub shard: u8,
    /// How many links it has passed, this one counted.
    pub hops: u8,
    /// Deliver at the router where this arrives, and nowhere else: an entry router's copy for one of its own site.
    pub here_only: bool,
    /// Sequence number of the first event at (origin, epoch, shard).
    pub seq: u64,
    /// The generation that judged the events at the origin. For ledger and explanation; it selects nothing.
    pub generation: u64,
    /// Remaining time to live in milliseconds; 0 = without end.
    pub ttl_ms: u32,
    /// The sites whose plain subscribers get it.
    pub sites: SiteSet,
    /// Where it may be, and through where it may go; absent = anywhere.
    pub allowed: Option<SiteSet>,
    /// The groups that are served, and where.
    pub grants: Grants,
}

impl Stamp {
    /// All sites that it goes to: for plain subscribers or for a group.
    pub fn destinations(&self) -> SiteSet {
        destinations(&self.sites, &self.grants)
    }

    /// Bytes that [`encode`](Self::encode) appends.
    pub fn encoded_bytes(&self) -> usize {
        let words = self.words();
        let sets = if self.allowed.is_some() { 2 } else { 1 };
        let more = if words > WIDE_WORDS { MORE_BYTES } else { 0 };
        // The first word of the sites is always there.
        STAMP_BYTES_MIN + (words * sets - 1) * WORD_BYTES + more + self.grants.len() * GRANT_BYTES
    }

    /// Words of each of its sets that are written.
    fn words(&self) -> usize {
        self.sites.words().max(self.allowed.as_ref().map_or(0, SiteSet::words)).max(NARROW_WORDS)
    }

    /// Appends the stamp to `out`.
    ///
    /// # Errors
    /// `too-many` for more than [`GRANTS_MAX`] grants, `hop-limit` for more than [`HOPS_MAX`] hops; nothing is
    /// appended then.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), Violation> {
        let grants = u8::try_from(self.grants.len()).unwrap_or(u8::MAX);
        check(grants, self.hops)?;
        let words = self.words();
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        let flags = flag(self.here_only, FLAG_HERE_ONLY)
            | flag(self.allowed.is_some(), FLAG_ALLOWED)
            | flag(words > NARROW_WORDS, FLAG_WIDE)
            | flag(words > WIDE_WORDS, FLAG_LONG);
        out.reserve(self.encoded_bytes());
        out.extend_from_slice(&self.origin.0.to_le_bytes());
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&[self.shard, self.hops, flags, grants]);
        out.extend_from_slice(&self.seq.to_le_bytes());
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.ttl_ms.to_le_bytes());
        for at in 0..words {
            if at == WIDE_WORDS {
                // As many as a set has at most: a handful.
                out.push(u8::try_from(words - WIDE_WORDS).unwrap_or(u8::MAX));
            }
            out.extend_from_slice(&self.sites.word(at).to_le_bytes());
            if let Some(allowed) = &self.allowed {
                out.extend_from_slice(&allowed.word(at).to_le_bytes());
            }
        }
        for grant in &self.grants {
            out.extend_from_slice(&grant.group.to_le_bytes());
            out.extend_from_slice(&grant.site.number().to_le_bytes());
        }
        Ok(())
    }

    /// Reads the stamp at the beginning of `bytes`; says how many bytes it took.
    ///
    /// # Errors
    /// `malformed` where bytes are missing, a flag is unknown, a set has words for more sites than there can be, or a site
    /// is out of range; `too-many`, `hop-limit`.
    pub fn decode(bytes: &[u8]) -> Result<(Self, usize), Violation> {
        const BOTH: u8 = FLAG_WIDE | FLAG_LONG;
        let Some(fixed) = bytes.first_chunk::<STAMP_BYTES_MIN>() else { return Err(short(bytes.len())) };
        let word = |at: usize| fixed[at..at + 4].try_into().map_or(0, u32::from_le_bytes);
        let long = |at: usize| fixed[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
        let (shard, hops, flags, grants_count) = (fixed[8], fixed[9], fixed[10], fixed[11]);
        if flags & !(FLAG_HERE_ONLY | FLAG_ALLOWED | FLAG_WIDE | FLAG_LONG) != 0 || flags & BOTH == FLAG_LONG {
            return Err(malformed(format!("a stamp has unknown flags {flags:#04x}")));
        }
        check(grants_count, hops)?;
        let (sites, allowed, at) = read_sets(bytes, flags)?;
        let end = at + usize::from(grants_count) * GRANT_BYTES;
        let raw = bytes.get(at..end).ok_or_else(|| short(bytes.len()))?;
        let mut grants = Grants::with_capacity(usize::from(grants_count));
        for grant in raw.chunks_exact(GRANT_BYTES) {
            let site = u16::from_le_bytes([grant[4], grant[5]]);
            let site = SiteNumber::new(site).ok_or_else(|| malformed(format!("a grant names site {site}")))?;
            grants.push(Grant { group: u32::from_le_bytes([grant[0], grant[1], grant[2], grant[3]]), site });
        }
        let stamp = Self {
            origin: RouterNumber(word(0)),
            epoch: word(4),
            shard,
            hops,
            here_only: flags & FLAG_HERE_ONLY != 0,
            seq: long(12),
            generation: long(20),
            ttl_ms: word(28),
            sites,
            allowed,
            grants,
        };
        Ok((stamp, end))
    }
}

/// All sites that something goes to: for plain subscribers or for a group.
pub(crate) fn destinations(sites: &SiteSet, grants: &[Grant]) -> SiteSet {
    let mut set = sites.clone();
    grants.iter().for_each(|grant| set.insert(grant.site));
    set
}

/// The sites, the allowed ones, and where the grants begin.
#[inline]
fn read_sets(bytes: &[u8], flags: u8) -> Result<(SiteSet, Option<SiteSet>, usize), Violation> {
    let mut at = STAMP_BYTES_MIN;
    let mut word = |flag: u8| {
        if flags & flag != flag {
            return Ok(0);
        }
        let word = word_at(bytes, at)?;
        at += WORD_BYTES;
        Ok(word)
    };
    // The first word of the sites has a fixed place, the last one before what is optional.
    let first = word_at(bytes, STAMP_BYTES_MIN - WORD_BYTES)?;
    let allowed = word(FLAG_ALLOWED)?;
    let mut sites = SiteSet::from_low([first, word(FLAG_WIDE)?]);
    let allowed = SiteSet::from_low([allowed, word(FLAG_ALLOWED | FLAG_WIDE)?]);
    let mut allowed = (flags & FLAG_ALLOWED != 0).then_some(allowed);
    if flags & FLAG_LONG != 0 {
        at = read_long(bytes, at, &mut sites, &mut allowed)?;
    }
    Ok((sites, allowed, at))
}

/// Reads the words from site 128 on; says where they end.
#[cold]
fn read_long(
    bytes: &[u8],
    mut at: usize,
    sites: &mut SiteSet,
    allowed: &mut Option<SiteSet>,
) -> Result<usize, Violation> {
    const MORE_MAX: usize = SiteSet::WORDS_MAX - WIDE_WORDS;
    let more = usize::from(*bytes.get(at).ok_or_else(|| short(bytes.len()))?);
    at += MORE_BYTES;
    if !(1..=MORE_MAX).contains(&more) {
        return Err(malformed(format!("a stamp has {more} words from site 128 on; 1 to {MORE_MAX} are allowed")));
    }
    for word in WIDE_WORDS..WIDE_WORDS + more {
        for set in std::iter::once(&mut *sites).chain(allowed.as_mut()) {
            set.set_word(word, word_at(bytes, at)?);
            at += WORD_BYTES;
        }
    }
    Ok(at)
}

#[inline]
fn word_at(bytes: &[u8], at: usize) -> Result<u64, Violation> {
    let raw = bytes.get(at..at + WORD_BYTES).ok_or_else(|| short(bytes.len()))?;
    Ok(raw.try_into().map_or(0, u64::from_le_bytes))
}

fn check(grants: u8, hops: u8) -> Result<(), Violation> {
    if usize::from(grants) > GRANTS_MAX {
        let message = format!("a stamp has {grants} grants; the limit is {GRANTS_MAX}");
        return Err(Violation::new(ViolationCode::TooMany, message));
    }
    if hops > HOPS_MAX {
        let message = format!("a stamp has {hops} hops; the limit is {HOPS_MAX}");
        return Err(Violation::new(ViolationCode::HopLimit, message));
    }
    Ok(())
}

#[cold]
fn short(len: usize) -> Violation {
    malformed(format!("a stamp is cut off after {len} bytes"))
}

fn malformed(message: String) -> Violation {
    Violation::new(ViolationCode::Malformed, message)
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use proptest::prelude::*;

    use super::*;
    use crate::limits::SITES_MAX;
    use crate::site_set::tests::site_sets;

    pub(crate) fn stamps() -> impl Strategy<Value = Stamp> {
        let site = 0..u16::try_from(SITES_MAX).unwrap();
        let grant =
            (any::<u32>(), site).prop_map(|(group, site)| Grant { group, site: SiteNumber::new(site).unwrap() });
        let who = (any::<u32>(), any::<u32>(), any::<u8>(), 0..=HOPS_MAX, any::<bool>());
        let what = (any::<u64>(), any::<u64>(), any::<u32>(), site_sets(), prop::option::of(site_sets()));
        (who, what, prop::collection::vec(grant, 0..=GRANTS_MAX)).prop_map(|(who, what, grants)| Stamp {
            origin: RouterNumber(who.0),
            epoch: who.1,
            shard: who.2,
            hops: who.3,
            here_only: who.4,
            seq: what.0,
            generation: what.1,
            ttl_ms: what.2,
            sites: what.3,
            allowed: what.4,
            grants: grants.into(),
        })
    }

    fn vector() -> (Stamp, Vec<u8>) {
        let site = |n| SiteNumber::new(n).unwrap();
        let stamp = Stamp {
            origin: RouterNumber(7),
            epoch: 3,
            shard: 1,
            hops: 2,
            here_only: false,
            seq: 1_000,
            generation: 42,
            ttl_ms: 5_000,
            sites: [site(0), site(9), site(63)].into_iter().collect(),
            allowed: Some(SiteSet::from_bits(0x8000_0000_0000_0201)),
            grants: [Grant { group: 0xdead_beef, site: site(9) }].into_iter().collect(),
        };
        let bytes = concat!(
            "07000000",
            "03000000",
            "01",
            "02",
            "02",
            "01",
            "e803000000000000",
            "2a00000000000000",
            "88130000",
            "0102000000000080",
            "0102000000000080",
            "efbeadde",
            "0900"
        );
        (stamp, hex::decode(bytes).unwrap())
    }

    /// A stamp as routers wrote it that knew 128 sites.
    fn as_before(stamp: &Stamp) -> Vec<u8> {
        let allowed = stamp.allowed.as_ref();
        let is_wide = stamp.sites.word(1) != 0 || allowed.is_some_and(|allowed| allowed.word(1) != 0);
        let flags = u8::from(stamp.here_only) | u8::from(allowed.is_some()) << 1 | u8::from(is_wide) << 2;
        let grants = u8::try_from(stamp.grants.len()).unwrap();
        let mut out = [stamp.origin.0.to_le_bytes(), stamp.epoch.to_le_bytes()].concat();
        out.extend([stamp.shard, stamp.hops, flags, grants]);
        out.extend([stamp.seq.to_le_bytes(), stamp.generation.to_le_bytes()].concat());
        out.extend(stamp.ttl_ms.to_le_bytes());
        for at in 0..=usize::from(is_wide) {
            out.extend(stamp.sites.word(at).to_le_bytes());
            out.extend(allowed.iter().flat_map(|allowed| allowed.word(at).to_le_bytes()));
        }
        for grant in &stamp.grants {
            out.extend(grant.group.to_le_bytes());
            out.extend(grant.site.number().to_le_bytes());
        }
        out
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let (stamp, bytes) = vector();
        let mut out = Vec::new();
        stamp.encode(&mut out).unwrap();
        assert_eq!(hex::encode(&out), hex::encode(&bytes));
        assert_eq!(out.len(), stamp.encoded_bytes());
        assert_eq!(Stamp::decode(&bytes).unwrap(), (stamp, bytes.len()));
    }

    #[test]
    fn sites_from_64_on_follow_and_only_where_there_are_any() {
        let (mut stamp, bytes) = vector();
        let mut out = Vec::new();
        stamp.sites.insert(SiteNumber::new(65).unwrap());
        stamp.encode(&mut out).unwrap();
        assert_eq!(out[10], FLAG_ALLOWED | FLAG_WIDE);
        assert_eq!(out[..48], [&bytes[..10], &[6], &bytes[11..48]].concat());
        assert_eq!(hex::encode(&out[48..64]), "02000000000000000000000000000000");
        assert_eq!(out[64..], bytes[48..]);
        assert_eq!(Stamp::decode(&out).unwrap(), (stamp, out.len()));
    }

    #[test]
    fn sites_from_128_on_follow_in_as_many_words_as_there_are_and_never_for_others() {
        let (mut stamp, bytes) = vector();
        let mut out = Vec::new();
        stamp.sites.insert(SiteNumber::new(200).unwrap());
        stamp.allowed.as_mut().unwrap().insert(SiteNumber::new(127).unwrap());
        stamp.encode(&mut out).unwrap();
        assert_eq!(out[10], FLAG_ALLOWED | FLAG_WIDE | FLAG_LONG);
        assert_eq!(out[..48], [&bytes[..10], &[14], &bytes[11..48]].concat());
        let words = concat!(
            "0000000000000000",
            "0000000000000080",
            "02",
            "0000000000000000",
            "0000000000000000",
            "0001000000000000",
            "0000000000000000"
        );
        assert_eq!(hex::encode(&out[48..97]), words);
        assert_eq!(out[97..], bytes[48..]);
        assert_eq!(out.len(), stamp.encoded_bytes());
        assert_eq!(Stamp::decode(&out).unwrap(), (stamp, out.len()));
        let refused = |at: usize, byte: u8| {
            let mut bytes = out.clone();
            bytes[at] = byte;
            Stamp::decode(&bytes).unwrap_err().code
        };
        assert_eq!(refused(64, 0), ViolationCode::Malformed, "no words");
        assert_eq!(refused(64, 15), ViolationCode::Malformed, "words for more than 1,024 sites");
        assert_eq!(refused(10, FLAG_ALLOWED | FLAG_LONG), ViolationCode::Malformed, "the second words are not there");
        let mut largest = vector().0;
        largest.sites.insert(SiteNumber::new(1_023).unwrap());
        largest.grants = [largest.grants[0]].into_iter().cycle().take(GRANTS_MAX).collect();
        assert_eq!(largest.encoded_bytes(), STAMP_BYTES_MAX);
    }

    #[test]
    fn what_is_over_a_limit_is_refused() {
        let refused = |at: usize, byte: u8| {
            let mut bytes = vector().1;
            bytes[at] = byte;
            Stamp::decode(&bytes).unwrap_err().code
        };
        assert_eq!(refused(9, 17), ViolationCode::HopLimit);
        assert_eq!(refused(10, 8), ViolationCode::Malformed);
        assert_eq!(refused(10, 16), ViolationCode::Malformed);
        assert_eq!(refused(11, 65), ViolationCode::TooMany);
        assert_eq!(refused(11, 2), ViolationCode::Malformed, "the second grant is not there");
        assert_eq!(refused(53, 4), ViolationCode::Malformed, "site 1,033");
        let mut stamp = vector().0;
        stamp.grants = [stamp.grants[0]].into_iter().cycle().take(GRANTS_MAX + 1).collect();
        let mut out = Vec::new();
        assert_eq!(stamp.encode(&mut out).unwrap_err().code, ViolationCode::TooMany);
        assert!(out.is_empty());
    }

    proptest! {
        #[test]
        fn a_stamp_comes_back_as_it_was(stamp in stamps(), rest in prop::collection::vec(any::<u8>(), 0..9)) {
            let mut bytes = Vec::new();
            stamp.encode(&mut bytes).unwrap();
            let len = bytes.len();
            prop_assert!(len <= STAMP_BYTES_MAX);
            prop_assert!(Stamp::decode(&bytes[..len - 1]).is_err());
            bytes.extend(rest);
            prop_assert_eq!(Stamp::decode(&bytes).unwrap(), (stamp, len));
        }

        #[test]
        fn a_mesh_of_128_sites_writes_what_it_always_wrote(mut stamp in stamps()) {
            let narrow = SiteSet::from_bits(u128::MAX);
            stamp.sites &= &narrow;
            stamp.allowed = stamp.allowed.map(|allowed| allowed & &narrow);
            stamp.grants.retain(|grant| grant.site.index() < SITES_NARROW);
            let mut bytes = Vec::new();
            stamp.encode(&mut bytes).unwrap();
            prop_assert_eq!(hex::encode(bytes), hex::encode(as_before(&stamp)));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(Stamp::decode(&bytes));
        }
    }
}
