//! Names of OpenTelemetry's semantic conventions, and our own beside them. Those for messaging have the status
//! "Development": whatever of them changes, changes here.

/// `messaging.system`: what we are called.
pub(super) const SYSTEM: &str = "myelin";
/// The name of the instrumentation scope.
pub(super) const SCOPE: &str = "myelin.trace";

// Of the resource.
pub(super) const SERVICE_NAME: &str = "service.name";
pub(super) const SERVICE_VERSION: &str = "service.version";
pub(super) const SERVICE_INSTANCE_ID: &str = "service.instance.id";
pub(super) const CLOUD_PROVIDER: &str = "cloud.provider";
pub(super) const CLOUD_REGION: &str = "cloud.region";

// Of messaging, and of errors.
pub(super) const MESSAGING_SYSTEM: &str = "messaging.system";
pub(super) const MESSAGING_OPERATION_NAME: &str = "messaging.operation.name";
pub(super) const MESSAGING_OPERATION_TYPE: &str = "messaging.operation.type";
pub(super) const MESSAGING_DESTINATION_NAME: &str = "messaging.destination.name";
pub(super) const MESSAGING_MESSAGE_ID: &str = "messaging.message.id";
pub(super) const MESSAGING_BATCH_MESSAGE_COUNT: &str = "messaging.batch.message_count";
pub(super) const ERROR_TYPE: &str = "error.type";

/// Values of `messaging.operation.type`.
pub(super) const PROCESS: &str = "process";
pub(super) const SEND: &str = "send";

/// Values of `messaging.operation.name`, and names of spans. A topic is no part of them: there may be too many.
pub(super) const ROUTE: &str = "route";
pub(super) const FORWARD: &str = "forward";
pub(super) const DELIVER: &str = "deliver";
pub(super) const JUDGE: &str = "judge";

// Our own.
pub(super) const SITE: &str = "myelin.site";
pub(super) const ROUTER: &str = "myelin.router";
pub(super) const GENERATION: &str = "myelin.generation";
pub(super) const OUTCOME: &str = "myelin.outcome";
pub(super) const PUBLISHER: &str = "myelin.publisher";
pub(super) const FROM: &str = "myelin.from";
pub(super) const TO: &str = "myelin.to";
pub(super) const HOPS: &str = "myelin.hops";
pub(super) const SITES: &str = "myelin.sites";
pub(super) const SUBSCRIBERS: &str = "myelin.subscribers";
pub(super) const GROUPS: &str = "myelin.groups";
pub(super) const SESSION: &str = "myelin.session";
pub(super) const SUBSCRIPTION: &str = "myelin.subscription";
pub(super) const STAGE: &str = "myelin.stage";
pub(super) const BINDING: &str = "myelin.binding";
pub(super) const MODULE_NAME: &str = "myelin.module.name";
pub(super) const MODULE_VERSION: &str = "myelin.module.version";
pub(super) const MODULE_DIGEST: &str = "myelin.module.digest";
pub(super) const VERDICT: &str = "myelin.verdict";
pub(super) const REASON: &str = "myelin.reason";
pub(super) const TARGETS: &str = "myelin.targets";
pub(super) const CHANGED: &str = "myelin.changed";
pub(super) const EMITTED: &str = "myelin.emitted";
pub(super) const LAST_GOOD: &str = "myelin.last_good";
