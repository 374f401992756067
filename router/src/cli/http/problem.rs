//! What a router answers that refuses: its problem as a failure, with what to do about it.

use super::super::failure::{Exit, Failure, exit_for_code, exit_for_status, is_nobody};
use serde::Deserialize;
use serde_json::Value;

/// A problem (RFC 9457), or one of the schema registry.
#[derive(Debug, Deserialize)]
struct Problem {
    #[serde(default)]
    title: String,
    #[serde(default, alias = "message")]
    detail: String,
    #[serde(default)]
    code: String,
}

/// What the server said, as a failure.
pub(super) fn problem(status: u16, answer: &[u8], path: &str) -> Failure {
    let whole = serde_json::from_slice::<Value>(answer).ok().filter(Value::is_object);
    let read = whole.and_then(|whole| Some((Problem::deserialize(&whole).ok()?, whole)));
    let Some((Problem { title, detail, code }, whole)) = read else {
        let what = format!("{path}: HTTP status {status}, and no problem in JSON: is this Myelin's admin API?");
        return Failure::new(exit_for_status(status), what);
    };
    let exit = exit_for_code(&code).unwrap_or_else(|| exit_for_status(status));
    let sentence = if detail.is_empty() { title } else { detail };
    // The server's words may quote a stranger's.
    let sentence: String = sentence.chars().filter(|c| !c.is_control() || *c == '\n').collect();
    let failure = Failure::new(exit, format!("{sentence} ({code})")).answered(whole);
    let failure = if code.is_empty() { failure } else { failure.coded(code.clone()) };
    let failure = Failure { is_unanswered: is_nobody(&code), ..failure };
    match exit {
        Exit::Denied if status == 401 => {
            failure.next("give --token, or a client certificate with --cert, --key and --ca")
        }
        Exit::Denied => match step_for_denial(&code) {
            Some(step) => failure.next(step),
            None => failure,
        },
        Exit::Conflict => match step_for_conflict(&code) {
            Some(step) => failure.next(step),
            None => failure,
        },
        _ => failure,
    }
}

/// What to do about a conflict, where its sentence does not say: that of a mere `conflict` does.
fn step_for_conflict(code: &str) -> Option<&'static str> {
    Some(match code {
        "subject-not-deleted" | "version-not-deleted" => "delete it without --permanent first",
        "schema-referenced" => "`myelin schema ls` shows the subjects; delete those that refer to it first",
        "schema-in-use" => "`myelin topic ls` shows which rules judge by it; let them judge by another first",
        "trust-stale" => "make the change anew: `myelin trust ls` shows what is there now",
        "proposal-stale" => "propose it anew: `myelin rollout history` shows what waits",
        "rollout-running" => "`myelin rollout status` shows it; wait for its end, or `myelin rollout abort`",
        "catalog-moved" => "somebody else has changed something meanwhile: look at what is there now, and do it again",
        _ => return None,
    })
}

/// What to do about a denial, where its sentence does not say.
fn step_for_denial(code: &str) -> Option<&'static str> {
    Some(match code {
        "forbidden-role" | "forbidden-tenant" => "`myelin whoami --may` shows what this identity may do",
        "signature-missing" => "sign it with `myelin filter sign`; `myelin trust ls` shows whose signatures count",
        "signature-untrusted" | "signature-invalid" | "signature-expired" | "signature-mismatch" => {
            "`myelin trust ls` shows whose signatures count, and for which modules"
        }
        "registry-mode" => "`myelin schema config SUBJECT` shows the mode and sets it",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use serde_json::json;

    #[test]
    fn the_next_step_of_a_conflict_is_about_its_code() {
        let step = |code: &str| {
            let answer = json!({"title": "Conflict", "status": 409, "detail": "no", "code": code});
            let failure = problem(409, answer.to_string().as_bytes(), "/v1/x");
            assert_eq!(failure.exit, Exit::Conflict, "{code}");
            failure.next.unwrap_or_default()
        };
        for (code, part) in [
            ("schema-in-use", "myelin topic ls"),
            ("schema-referenced", "myelin schema ls"),
            ("rollout-running", "myelin rollout status"),
            ("trust-stale", "myelin trust ls"),
        ] {
            assert!(step(code).contains(part), "{code}: {}", step(code));
        }
        // A site that has routers, a tenant's services, no sites: their sentences say it.
        assert_eq!(step("conflict"), "");
        assert_eq!(step("rollout-needed"), "");
    }

    #[test]
    fn a_program_is_told_the_problem_as_the_router_said_it() {
        let said = json!({"type": "/problems/forbidden-role", "title": "Forbidden role", "status": 403,
            "detail": "that is for the role security", "code": "forbidden-role"});
        let told = problem(403, said.to_string().as_bytes(), "/v1/x").for_programs();
        let error = &told["error"];
        assert_eq!(
            (&error["code"], &error["exit_code"], &error["problem"]),
            (&json!("forbidden-role"), &json!(4), &said)
        );
        assert!(error["fix"].as_str().is_some_and(|fix| fix.contains("myelin whoami")), "{error}");
        let other = problem(502, b"<html>", "/v1/x").for_programs();
        assert_eq!((&other["error"]["code"], &other["error"]["problem"]), (&json!("failed"), &Value::Null));
    }
}
