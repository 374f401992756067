//! What the streams must be so that they keep a catalog.

use async_nats::jetstream::stream::{
    Config, DiscardPolicy, Info, PersistenceMode, RetentionPolicy, State, StorageType,
};

use super::options::JetstreamOptions;

/// The subject of records.
pub(super) fn record_subject(options: &JetstreamOptions) -> String {
    format!("{}.record", options.stream)
}

/// The subject of leases.
pub(super) fn lease_subject(options: &JetstreamOptions) -> String {
    format!("{}.lease", options.stream)
}

/// The stream of records and grants.
pub(super) fn log_config(options: &JetstreamOptions) -> Config {
    Config {
        name: options.stream.clone(),
        description: Some("Myelin catalog: records and leases".into()),
        subjects: vec![record_subject(options), lease_subject(options)],
        deny_delete: true,
        deny_purge: true,
        ..kept_for_ever(options)
    }
}

/// The bucket of beats and of the witness: a JetStream key-value bucket, read from its leader.
pub(super) fn state_config(options: &JetstreamOptions) -> Config {
    let bucket = options.state_bucket();
    Config {
        name: format!("KV_{bucket}"),
        description: Some("Myelin catalog: who renews its lease, and the newest record seen".into()),
        subjects: vec![format!("$KV.{bucket}.>")],
        max_messages_per_subject: 1,
        allow_rollup: true,
        deny_delete: true,
        ..kept_for_ever(options)
    }
}

/// The bucket of modules: a JetStream object store, read from its leader.
pub(super) fn blob_config(options: &JetstreamOptions) -> Config {
    let bucket = options.blob_bucket();
    Config {
        name: format!("OBJ_{bucket}"),
        description: Some("Myelin catalog: modules by digest".into()),
        subjects: vec![format!("$O.{bucket}.C.>"), format!("$O.{bucket}.M.>")],
        allow_rollup: true,
        ..kept_for_ever(options)
    }
}

fn kept_for_ever(options: &JetstreamOptions) -> Config {
    Config {
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::New,
        storage: StorageType::File,
        num_replicas: options.replicas,
        max_messages: -1,
        max_bytes: -1,
        max_messages_per_subject: -1,
        max_consumers: -1,
        ..Config::default()
    }
}

/// What is wrong with a stream that was found, against what it was to be; empty where nothing is.
pub(super) fn problems(found: &Info, wanted: &Config, options: &JetstreamOptions) -> Vec<String> {
    let config = &found.config;
    let name = &config.name;
    let mut problems = Vec::new();
    let mut require = |holds: bool, problem: &str| {
        if !holds {
            problems.push(format!("{name}: {problem}"));
        }
    };
    let least = options.replicas_min();
    require(
        config.num_replicas >= least,
        &format!(
            "it has {} replicas and needs {least}; `nats stream edit {name} --replicas {least}`, or accept it with \
             `allow_single_replica = true`",
            config.num_replicas
        ),
    );
    require(config.storage == StorageType::File, "it is kept in memory; make it anew with `--storage file`");
    require(
        config.persist_mode != Some(PersistenceMode::Async),
        "it is persisted asynchronously; make it anew without `persist_mode: async`",
    );
    require(config.max_age.is_zero(), "its messages expire; set `--max-age 0`");
    require(config.discard == DiscardPolicy::New, "it discards old messages when it is full; set `--discard new`");
    require(config.retention == RetentionPolicy::Limits, "its retention is not `limits`; make it anew");
    require(!config.no_ack && !config.sealed, "it acknowledges nothing or is sealed; make it anew");
    require(config.mirror.is_none() && config.sources.is_none(), "it copies other streams; make it anew without");
    require(!config.allow_message_ttl, "it lets single messages expire; make it anew without `allow_msg_ttl`");
    require(config.subject_transform.is_none(), "it changes subjects; remove its `subject_transform`");
    require(config.max_message_size <= 0, "it limits messages; set `--max-msg-size -1`");
    let (kept, wanted_kept) = (config.max_messages_per_subject, wanted.max_messages_per_subject);
    require(
        if wanted_kept < 0 { kept <= 0 } else { kept == wanted_kept },
        &format!("it keeps {kept} messages of a subject; set `--max-msgs-per-subject {wanted_kept}`"),
    );
    let mut subjects = [config.subjects.clone(), wanted.subjects.clone()];
    subjects.iter_mut().for_each(|subjects| subjects.sort());
    require(
        subjects[0] == subjects[1],
        &format!("its subjects are {}; they must be {}", subjects[0].join(", "), subjects[1].join(", ")),
    );
    require(config.deny_delete || !wanted.deny_delete, "messages can be deleted; make it anew with `--deny-delete`");
    require(config.deny_purge || !wanted.deny_purge, "it can be purged; make it anew with `--deny-purge`");
    require(config.allow_rollup == wanted.allow_rollup, "`allow_rollup_hdrs` is not as it must be; make it anew");
    problems
}

/// Why the sequences of the log's stream cannot be those of its records and grants; `None` where they can.
pub(super) fn sequence_problem(state: &State) -> Option<String> {
    let is_whole = state.messages == state.last_sequence && (state.messages == 0 || state.first_sequence == 1);
    (!is_whole).then(|| {
        format!(
            "it has {} messages between sequences {} and {}, where all from 1 on must be there: messages were deleted, \
             or the stream did not begin with 1",
            state.messages, state.first_sequence, state.last_sequence
        )
    })
}
