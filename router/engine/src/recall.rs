//! What a filter asked its host, and what it was told: recorded while it judges, answered from the record in a replay.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A question whose answer depends on more than the batch. `payload` is none: the event itself answers it. `log` and
/// `count` have no answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Question {
    /// `schema`.
    Schema {
        /// The subject.
        subject: String,
    },
    /// `take`.
    Take {
        /// The bucket.
        bucket: String,
        /// How much of it.
        n: u32,
        /// How much flows in, in every period.
        amount: u32,
        /// The period, in milliseconds.
        period_ms: u32,
        /// What the bucket holds at most.
        burst: u32,
    },
    /// `seen`.
    Seen {
        /// The key.
        key: String,
        /// For how long it is remembered.
        ttl_ms: u64,
    },
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Schema { subject } => write!(f, "schema({subject:?})"),
            Self::Take { bucket, n, amount, period_ms, burst } => {
                write!(f, "take({bucket:?}, {n}, {amount} in {period_ms} ms up to {burst})")
            }
            Self::Seen { key, ttl_ms } => write!(f, "seen({key:?}, {ttl_ms} ms)"),
        }
    }
}

/// What the host said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostAnswer {
    /// Yes or no: to `take` and to `seen`.
    Flag(bool),
    /// A schema, or none.
    Schema(Option<Vec<u8>>),
}

/// One question and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostCall {
    /// What was asked.
    pub question: Question,
    /// What was said.
    pub answer: HostAnswer,
}

/// The answers for one batch of a replay. Equal questions are answered in the order of the record, so that the same
/// questions get the same answers, however many others a new version leaves out between them. What a call was told that
/// then faulted is there again: it counts for nothing.
#[derive(Debug, Default)]
pub struct Answers {
    left: Mutex<Left>,
    /// A question without an answer is asked of what the instance shares, and counted.
    falls_back: bool,
}

#[derive(Debug, Default)]
struct Left {
    answers: HashMap<Question, VecDeque<HostAnswer>>,
    /// What the running call was told, or the last one.
    told: Vec<HostCall>,
    /// The first question that had none.
    missed: Option<Question>,
    /// Questions of the running call, or the last one, that had none, and those of the calls before.
    others_now: u64,
    others: u64,
}

impl Answers {
    /// Answers that a live filter is given: a question that they do not know is asked of what its instance shares with
    /// others, instead of ending the call.
    pub fn falling_back() -> Self {
        Self { falls_back: true, ..Self::default() }
    }

    /// Knows the answers of `calls`, and no others.
    pub fn load(&self, calls: &[HostCall]) {
        let mut left = self.lock();
        left.answers.clear();
        left.told.clear();
        left.missed = None;
        for HostCall { question, answer } in calls {
            left.answers.entry(question.clone()).or_default().push_back(answer.clone());
        }
    }

    /// Whether a question without an answer is to be asked elsewhere.
    pub(crate) fn falls_back(&self) -> bool {
        self.falls_back
    }

    /// The next answer to `question`; where there is none, that is remembered.
    pub(crate) fn answer(&self, question: Question) -> Option<HostAnswer> {
        let mut left = self.lock();
        let answer = left.answers.get_mut(&question).and_then(VecDeque::pop_front);
        match &answer {
            Some(answer) => left.told.push(HostCall { question, answer: answer.clone() }),
            None => {
                left.others_now += 1;
                left.missed.get_or_insert(question);
            }
        }
        answer
    }

    /// A call begins: what the one before was told is used up.
    pub(crate) fn keep(&self) {
        let mut left = self.lock();
        left.told.clear();
        left.others += std::mem::take(&mut left.others_now);
    }

    /// The last call has faulted: what it was told is there again.
    pub(crate) fn rewind(&self) {
        let mut left = self.lock();
        left.others_now = 0;
        while let Some(HostCall { question, answer }) = left.told.pop() {
            left.answers.entry(question).or_default().push_front(answer);
        }
    }

    /// The first question since the last call that had no answer.
    pub fn take_missed(&self) -> Option<Question> {
        self.lock().missed.take()
    }

    /// How many questions had no answer since this was last asked, those of calls that faulted left out.
    pub fn take_others(&self) -> u64 {
        let mut left = self.lock();
        std::mem::take(&mut left.others) + std::mem::take(&mut left.others_now)
    }

    fn lock(&self) -> MutexGuard<'_, Left> {
        // A poisoned lock still guards whole values.
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(key: &str) -> Question {
        Question::Seen { key: key.into(), ttl_ms: 5 }
    }

    #[test]
    fn equal_questions_are_answered_in_order_and_nothing_is_invented() {
        let answers = Answers::default();
        let call = |key: &str, flag| HostCall { question: seen(key), answer: HostAnswer::Flag(flag) };
        answers.load(&[call("a", false), call("b", false), call("a", true)]);
        assert_eq!(answers.answer(seen("a")), Some(HostAnswer::Flag(false)));
        assert_eq!(answers.answer(seen("a")), Some(HostAnswer::Flag(true)));
        assert_eq!(answers.take_missed(), None);
        assert_eq!((answers.answer(seen("a")), answers.answer(seen("c"))), (None, None));
        assert_eq!(answers.take_missed(), Some(seen("a")), "the first one");
        assert_eq!(answers.take_missed(), None);
        answers.load(&[]);
        assert_eq!(answers.answer(seen("b")), None, "another batch, another record");
    }

    #[test]
    fn a_call_that_faulted_gives_back_what_it_was_told() {
        let answers = Answers::falling_back();
        let call = |key: &str, flag| HostCall { question: seen(key), answer: HostAnswer::Flag(flag) };
        answers.load(&[call("a", false), call("a", true)]);
        answers.keep();
        assert_eq!(answers.answer(seen("a")), Some(HostAnswer::Flag(false)));
        answers.keep();
        assert_eq!(answers.answer(seen("a")), Some(HostAnswer::Flag(true)));
        assert_eq!(answers.answer(seen("other")), None);
        answers.rewind();
        assert_eq!(answers.take_others(), 0, "it counts for nothing");
        assert_eq!(answers.answer(seen("a")), Some(HostAnswer::Flag(true)), "the first one was not given back");
        assert_eq!((answers.answer(seen("a")), answers.take_others(), answers.take_others()), (None, 1, 0));
    }
}
