//! Payloads against the schemas of their topics, before any filter sees them.

use super::{Admitted, Publisher, Received};
use crate::generation::Active;
use crate::local::Local;
use crate::screen::{Screen, Violation};
use std::sync::Arc;

/// An event of the batch that may not come in.
struct Bad {
    /// Its place in the batch.
    at: usize,
    screen: Arc<Screen>,
    violation: Box<Violation>,
}

impl Publisher {
    /// Waits for the schemas that events of the batch are the first to name. Before anything else is done with them: what
    /// judges may be another generation afterwards.
    pub(super) async fn await_schemas(&mut self, local: &Local) {
        let received = Received { topics: &self.topics, events: &self.batch };
        let (buffer, identity) = (self.decoder.buffer(), &*self.source.name.text);
        let waiting = &mut self.bench.waiting;
        for event in &self.batch {
            let Some(topic) = received.topic(event) else { continue };
            let screened = local.screened(topic);
            if screened.screens.is_empty() {
                continue;
            }
            let view = received.view(event, buffer, identity);
            for screen in &screened.screens {
                screen.wait_for_schema(&view, waiting).await;
            }
        }
    }

    /// Takes out of the batch what is not as the schema of its topic says: refused, or on its way to the dead letters.
    pub(super) async fn screen(&mut self, local: &Local, active: &Active, now_ns: u64) {
        let bad = self.find_bad(local, active).await;
        if bad.is_empty() {
            return;
        }
        let judge = self.judge_of(local, active, now_ns);
        let received = Received { topics: &self.topics, events: &self.batch };
        for Bad { at, screen, violation } in &bad {
            let event = &self.batch[*at];
            let view = received.view(event, self.decoder.buffer(), &judge.identity);
            judge.turn_back(screen, violation, &view, (Some(event.seq), None), &mut self.bench.verdicts);
        }
        // Both are in the order of the batch.
        let mut next = bad.iter().map(|bad| bad.at).peekable();
        let mut at = 0;
        self.batch.retain(|_| {
            let is_bad = next.next_if_eq(&at).is_some();
            at += 1;
            !is_bad
        });
        self.tell_verdicts();
    }

    /// Neighbours of one topic share one look-up. What may not be at this site at all is refused for that reason. Other
    /// clients have their turn where payloads are dear; the batch is judged to its end all the same, since its events are
    /// counted and decoded already.
    async fn find_bad(&mut self, local: &Local, active: &Active) -> Vec<Bad> {
        let received = Received { topics: &self.topics, events: &self.batch };
        let (buffer, identity) = (self.decoder.buffer(), &*self.source.name.text);
        let pace = &mut self.bench.pace;
        pace.begin();
        let (mut bad, mut at) = (Vec::new(), 0);
        while at < self.batch.len() {
            let first: &Admitted = &self.batch[at];
            let same = |event: &&Admitted| event.span.head.topic_ref == first.span.head.topic_ref;
            let end = at + self.batch[at..].iter().take_while(same).count();
            let run = at..end;
            at = end;
            let Some(topic) = received.topic(first) else { continue };
            let screened = local.screened(topic);
            if screened.screens.is_empty() || !local.route(topic, active).may_be_here {
                continue;
            }
            let before = bad.len();
            for at in run.clone() {
                let view = received.view(&self.batch[at], buffer, identity);
                let mut judge = |screen: &Screen| screen.judge_waited(&view, pace.work_ns()).err();
                let found = screened.screens.iter().find_map(|screen| Some((screen, judge(screen)?)));
                bad.extend(found.map(|(screen, violation)| Bad { at, screen: screen.clone(), violation }));
                if pace.is_over() {
                    pace.pass_turn().await;
                }
            }
            let good = run.len() - (bad.len() - before);
            screened.screens.iter().for_each(|screen| screen.passed(good as u64));
        }
        pace.end();
        bad
    }
}
