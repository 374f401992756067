//! The rules about schemas, compiled whenever they or the registry have changed.

use super::Keeper;
use crate::screen::Screens;
use myelin_catalog::TopicRule;
use std::sync::Arc;

impl Keeper {
    /// Publishes the rules about schemas as the log has them now. Nothing is made where there are none.
    pub(super) fn renew_screens(&mut self) {
        let catalog = self.log.catalog();
        self.registry.renew(catalog.schemas());
        let is_about_schemas = |rule: &&TopicRule| rule.schema.is_some();
        let rules = || catalog.topic_rules().filter(is_about_schemas);
        let (known, revision) = &self.screened;
        let has_some = rules().next().is_some();
        if rules().eq(known) && (!has_some || *revision == catalog.schemas().revision()) {
            return;
        }
        let screens = Screens::after(&self.screens.load(), rules(), catalog.schemas());
        self.screened = (rules().cloned().collect(), catalog.schemas().revision());
        self.screens.store(Arc::new(screens));
    }
}
