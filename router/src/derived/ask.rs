//! Asking a chain, and showing what it said to those who record or compare it.

use super::{Judge, Pass, Verdicts};
use crate::capture::{Chosen, Side, Taken};
use crate::hops;
use myelin_catalog::Stage;
use myelin_engine::{Batch, BoundFilter, ChainScratch, EventView, Judgement};
use std::rc::Rc;

impl Judge<'_> {
    /// Shows events that no binding judges at this stage to a shadow, which may have one that does.
    #[cold]
    pub fn show(&self, stage: Stage, views: &[EventView<'_>]) {
        if let Some(shadow) = self.local.shade.choose(stage, views, |_| false) {
            let taken = Taken {
                views,
                now_unix_ns: self.now_ns,
                worker: self.local.id,
                generation: self.active.number,
                side: Side::None,
                entry: true,
                chain: &[],
                tape: None,
            };
            shadow.take(&taken, stage, self.local.shared.now_ms());
        }
    }

    /// What a chain finds out about `views`; `None` where they do not fit a batch.
    pub(super) async fn ask<'a>(
        &self,
        pass: Pass<'a>,
        views: &[EventView<'_>],
        scratch: &'a mut ChainScratch,
        verdicts: &mut Verdicts,
    ) -> Option<Judgement<'a>> {
        let batch = Batch::new(views, self.now_ns, self.local.shared.now_ms()).ok()?;
        if self.local.shared.captures.is_on() || self.local.shade.is_on() {
            // In a box: a future that is seldom needed does not make every batch's larger.
            return Some(Box::pin(self.ask_taped(pass, &batch, scratch, verdicts)).await);
        }
        Some(self.ask_chain(pass, &batch, scratch, verdicts).await)
    }

    /// Lets the chain judge, and watches it where an event of the batch is followed.
    async fn ask_chain<'a>(
        &self,
        pass: Pass<'a>,
        batch: &Batch<'_>,
        scratch: &'a mut ChainScratch,
        verdicts: &mut Verdicts,
    ) -> Judgement<'a> {
        match &mut verdicts.watch {
            None => pass.chain.run(batch, scratch).await,
            // Aside: what it keeps meanwhile is not to be part of every publisher.
            Some(watch) => {
                Box::pin(hops::judge(self.active, (pass.chain, pass.is_egress), batch, scratch, watch)).await
            }
        }
    }

    /// The same, for the captures and the shadow that want the batch.
    async fn ask_taped<'a>(
        &self,
        pass: Pass<'a>,
        batch: &Batch<'_>,
        scratch: &'a mut ChainScratch,
        verdicts: &mut Verdicts,
    ) -> Judgement<'a> {
        let (chain, captures) = (pass.chain, &self.local.shared.captures);
        let binds = |name: &str| chain.bindings().iter().any(|binding| binding.name() == name);
        let stage = if pass.is_egress { Stage::Egress } else { Stage::Ingress };
        let chosen = match captures.is_on() {
            true => captures.choose(batch.events(), batch.now_ms(), binds),
            false => Chosen::new(),
        };
        let shadow = self.local.shade.choose(stage, batch.events(), binds);
        if chosen.is_empty() && shadow.is_none() {
            return self.ask_chain(pass, batch, scratch, verdicts).await;
        }
        scratch.record();
        let judgement = self.ask_chain(pass, batch, scratch, verdicts).await;
        let plan = |binding: &Rc<BoundFilter>| self.active.plan_of(binding.name()).cloned();
        let plans: Vec<_> = chain.bindings().iter().map(plan).collect();
        let taken = Taken {
            views: batch.events(),
            now_unix_ns: batch.now_unix_ns(),
            worker: self.local.id,
            generation: self.active.number,
            side: if pass.is_egress { Side::Egress } else { Side::Ingress },
            entry: pass.is_entry,
            chain: &plans,
            tape: judgement.tape(),
        };
        chosen.iter().for_each(|capture| capture.record(&taken));
        if let Some(shadow) = shadow {
            shadow.take(&taken, stage, batch.now_ms());
        }
        judgement
    }
}
