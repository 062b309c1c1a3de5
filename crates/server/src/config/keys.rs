//! Every configuration key with its default and meaning: what unknown keys are compared with, and what the reference in
//! `docs/configuration.md` is generated from.

/// One key.
pub struct Key {
    /// The table it stands in; empty for the top level.
    pub table: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Its default, as it would be written.
    pub default: &'static str,
    /// What it means, with units.
    pub meaning: &'static str,
}

const fn key(table: &'static str, name: &'static str, default: &'static str, meaning: &'static str) -> Key {
    Key { table, name, default, meaning }
}

/// All keys, in the order of the reference.
pub const KEYS: &[Key] = &[
    key("", "listen", "\"127.0.0.1:8484\"", "Address and port. Beyond loopback, keys are required."),
    key("", "data_dir", "see below", "Where files, keys and the registry of containers are kept."),
    key("", "upstream", "the scripted model", "Models; a list of tables, the first whose `models` match wins."),
    key("", "sandbox", "", "Limits of containers."),
    key("", "serving", "", "Limits of requests and of the loop."),
    key("", "limits", "none", "What each workspace may hold and use, its end users together (docs/tenants.md)."),
    key(
        "",
        "workspace",
        "none",
        "The same for one workspace; a list of tables. What a table does not say is as in `[limits]`.",
    ),
    key("", "store", "", "Where metadata and contents are kept. [storage.md](storage.md) tells how to choose."),
    key("", "guard", "", "What may not run."),
    key("upstream", "name", "required", "A name for logs and errors."),
    key(
        "upstream",
        "kind",
        "required",
        "`anthropic`, `openai` (any server of the chat completions API), `scripted`, or `recorded` (answers from a file).",
    ),
    key(
        "upstream",
        "base_url",
        "see its meaning",
        "Where the upstream is. For `anthropic` without `/v1`, the default is `https://api.anthropic.com`; for `openai` what stands \
         before `/chat/completions`, as `http://127.0.0.1:11434/v1`, and there is no default.",
    ),
    key(
        "upstream",
        "api_key_env",
        "none",
        "Environment variable that holds the upstream's key. The key itself never stands in the file. `openai` upstreams may do without.",
    ),
    key(
        "upstream",
        "via",
        "none",
        "For `anthropic`: `bedrock` or `vertex`, when the models stand in a cloud (upstreams.md). Credentials come from the environment.",
    ),
    key("upstream", "region", "required with `via`", "The cloud's region, as `us-east-1`; for `vertex` also `global`."),
    key("upstream", "project", "required with `via = \"vertex\"`", "The project's id."),
    key(
        "upstream",
        "betas",
        "those of the model",
        "For `anthropic`: globs over the `anthropic-beta` values of requests that are passed on, as `[\"context-1m-*\"]`. Without it, \
         those that concern the model are. Those that switch what this server does are never passed on.",
    ),
    key(
        "upstream",
        "server_tools",
        "none",
        "For `anthropic`: tools that the vendor runs itself, and that requests may therefore declare: `web_search`, `web_fetch`, `tool_search` \
         (every version of each, or types and their beginnings, as `web_search_20250305` and `web_fetch_2026*`), and `mcp`, its connector, \
         by which clients hand the vendor tokens of theirs (upstreams.md).",
    ),
    key("upstream", "models", "[\"*\"]", "Globs over the request's `model`."),
    key("upstream", "model", "the request's", "The name sent upstream."),
    key(
        "upstream",
        "aliases",
        "none",
        "A table of other names that the upstream serves, each with the name that is sent upstream. An empty `models` leaves it to these.",
    ),
    key(
        "upstream",
        "like",
        "see its meaning",
        "The hosted model whose rules hold for these models, as `claude-haiku-4-5`: which tool versions, prefill, sampling \
         parameters, forced choice, calls from code. `itself` is the name that is sent upstream, the default for \
         `kind = \"anthropic\"`; `nobody` is none, the default for every other kind, whatever name a model is served under.",
    ),
    key(
        "upstream",
        "vision",
        "not said",
        "Whether its models take images. Where `false`, requests with some are refused with the reason.",
    ),
    key("upstream", "documents", "not said", "The same for documents that are no text."),
    key("upstream", "tools", "not said", "The same for tools."),
    key(
        "upstream",
        "thinking",
        "not said",
        "The same for thinking. Where `true`, an `openai` upstream is sent `reasoning_effort`, made of `output_config.effort` or of a \
         thinking budget.",
    ),
    key(
        "upstream",
        "context_tokens_max",
        "not said",
        "Most tokens that its models read, by Belljar's estimate. Requests with more are refused as the hosted API refuses them.",
    ),
    key("upstream", "connect_s_max", "10", "Seconds until the connection stands."),
    key(
        "upstream",
        "first_byte_s_max",
        "300",
        "Seconds from there to the first byte of a reply; with `stream = false` that is the whole reply.",
    ),
    key("upstream", "between_bytes_s_max", "120", "Seconds from one piece of a reply to the next."),
    key("upstream", "whole_s_max", "none", "Seconds for one sampling, retries included."),
    key(
        "upstream",
        "retries_max",
        "2",
        "How often a call is sent again, with growing pauses, before the first byte of a reply.",
    ),
    key(
        "upstream",
        "failover",
        "false",
        "Whether the next upstream that serves the name is asked when this one fails before its first word. It may be another model.",
    ),
    key(
        "upstream",
        "failures_max",
        "5",
        "Failures in a row after which an upstream rests: clients get 529 with `retry-after`, or the next one. 0 is never.",
    ),
    key("upstream", "rest_s", "10", "Seconds of such a rest. Then one request tries."),
    key(
        "upstream",
        "api",
        "\"chat\"",
        "For `openai`: `chat`, or `responses` for a server that offers only the Responses API. That one has no stop sequences: requests \
         with some are refused.",
    ),
    key(
        "upstream",
        "max_tokens_key",
        "\"max_tokens\"",
        "For `openai`: what the server calls the limit of a reply; the newest hosted models want `max_completion_tokens`.",
    ),
    key(
        "upstream",
        "output_tokens_max",
        "none",
        "For `openai`: most tokens of a reply that the server takes as a limit. Requests for more are cut to this.",
    ),
    key("upstream", "stream", "true", "For `openai`: whether replies are streamed; otherwise they come whole."),
    key("upstream", "stream_usage", "true", "For `openai`: whether streams are asked for usage (`stream_options`)."),
    key(
        "upstream",
        "thinking_key",
        "none",
        "For `openai`: the member of a past message that takes its thinking, as `reasoning_content` or `reasoning`. Without it, past \
         thinking is left out.",
    ),
    key(
        "upstream",
        "body",
        "none",
        "For `openai`: a table of members for every request's body, as `chat_template_kwargs`. They outweigh what Belljar would say.",
    ),
    key(
        "upstream",
        "rescue",
        "[]",
        "For `openai`: formats of calls that the model writes into its text because its server does not read them; found there, a call \
         of a tool on offer is made. `hermes` (`<tool_call>`, Qwen's `<function=...>`), `llama` (`<|python_tag|>`, JSON that begins a \
         line), `mistral` (`[TOOL_CALLS]`), `fenced` (a block of JSON), `json` (JSON anywhere: also where the model only speaks of a \
         call), `deepseek` and `kimi` (their own tokens); `thinking` (`<think>`).",
    ),
    key(
        "upstream",
        "strict_roles",
        "false",
        "For `openai`: whether the model's chat template takes a system message at the head alone, and users and assistants by turns. Then \
         later system messages are the user's, and what the user says beside results stands in the last of these.",
    ),
    key(
        "upstream",
        "tool_texts",
        "see its meaning",
        "In which words the model is told of the code execution tool: `hosted`, the default, `plain`, the default for `openai`: shorter, \
         with an example of each call, for models that were never taught the tool; or the absolute path of a file of texts.",
    ),
    key(
        "upstream",
        "record",
        "false",
        "For `anthropic` and `openai`: whether what the upstream is asked and answers is added to a recording, `recordings/NAME.jsonl` \
         in `data_dir`; or a path, where a relative one is beside that. Keys are never in it; everything that is said is. Not with \
         `via`.",
    ),
    key(
        "upstream",
        "recording",
        "required",
        "For `recorded`: the recording that answers; a relative path is one in `recordings` in `data_dir`.",
    ),
    key("upstream", "scripts_dir", "none", "Folder of scripts, for `kind = \"scripted\"`."),
    key("sandbox", "image", "\"default\"", "Name or digest of the image containers start from."),
    key("sandbox", "cpus", "1.0", "Cores of one container."),
    key("sandbox", "memory_bytes_max", "5368709120", "Memory of one container, in bytes."),
    key(
        "sandbox",
        "disk_bytes_max",
        "5368709120",
        "Disk of one container, in bytes; it is kept in memory and counts there too.",
    ),
    key("sandbox", "processes_max", "256", "Processes and threads of one container."),
    key("sandbox", "cell_wall_s_max", "90", "Wall time of one Python cell, in seconds."),
    key("sandbox", "invocation_wall_s_max", "300", "Wall time of one bash command, in seconds."),
    key(
        "sandbox",
        "tool_answer_wait_s_max",
        "270",
        "Seconds that a call which code makes of a client's tool may stay unanswered; then the code gets a `TimeoutError`. \
         Clients see it as `expires_at` of a reply that pauses.",
    ),
    key(
        "sandbox",
        "output_bytes_max",
        "1048576",
        "Bytes kept of each of stdout and stderr; the rest is counted, and said.",
    ),
    key(
        "sandbox",
        "pool_containers",
        "4",
        "Complete containers made ahead of need: so many for bash, and as many with a Python interpreter.",
    ),
    key(
        "sandbox",
        "container_idle_s_max",
        "300",
        "Seconds without use after which a container's files go to disk and its processes end. The next use brings it back.",
    ),
    key(
        "sandbox",
        "container_expiry_s",
        "3600",
        "Seconds without use after which a container is removed; clients see it as `expires_at`.",
    ),
    key("sandbox", "container_life_s_max", "2592000", "Seconds after which a container is removed in any case."),
    key(
        "sandbox",
        "containers_max",
        "256",
        "Containers alive at once. One in use takes up to 12 of the server's open files, one whose code waits for a tool 7; `belljar \
         doctor` says how many the hard limit has room for.",
    ),
    key(
        "sandbox",
        "limits",
        "\"required\"",
        "`best_effort` serves although this machine cannot limit memory and processes.",
    ),
    key(
        "sandbox",
        "isolation",
        "\"namespaces\"",
        "What stands between code and the host: `namespaces`, or `gvisor` (slower, stronger). A key may ask for the other \
         one. Never replaced by a weaker one: a server that cannot have what is configured does not start.",
    ),
    key(
        "sandbox",
        "runsc",
        "the first found",
        "gVisor's program, as an absolute path. Otherwise looked for on the `PATH`, then as `tools/bin/runsc` in the \
         directory of caches.",
    ),
    key("serving", "samplings_max", "10", "Samplings in one turn before it ends with `pause_turn`."),
    key("serving", "batch_turns_max", "4", "Turns of message batches that run at once."),
    key(
        "serving",
        "batch_samplings_max",
        "50",
        "Samplings in one turn of a message batch before it ends with `pause_turn`: nobody is there to go on with it.",
    ),
    key(
        "serving",
        "request_bytes_max",
        "33554432",
        "Bytes of one Messages request; and, in base64, of the files that its images and documents name.",
    ),
    key("serving", "file_bytes_max", "500000000", "Bytes of one file."),
    key(
        "serving",
        "workspace_bytes_max",
        "1099511627776",
        "Bytes of all files of one workspace, named checkpoints among them.",
    ),
    key(
        "serving",
        "uploads_downloadable",
        "false",
        "Whether uploaded files can be downloaded again. The hosted API gives out only what code made.",
    ),
    key("serving", "connections_max", "4096", "Connections served at once; more wait."),
    key("serving", "ping_interval_s", "10", "Seconds of silence in a stream before a `ping`."),
    key("serving", "lease_wait_s_max", "30", "Seconds a turn waits for a container that another turn is using."),
    key(
        "serving",
        "shutdown_wait_s_max",
        "30",
        "Seconds that running turns may take to end when the server is asked to stop, and, after that, putting live containers on disk.",
    ),
    key("limits", "files_max", "none", "Files. One more is refused with 400 and `storage_quota_exceeded`."),
    key(
        "limits",
        "files_bytes_max",
        "none",
        "Bytes of all files and named checkpoints, in the place of `serving.workspace_bytes_max`.",
    ),
    key(
        "limits",
        "containers_max",
        "none",
        "Live containers. One more puts an idle one on disk; where none is idle, it is refused with 429.",
    ),
    key(
        "limits",
        "executions_per_day_max",
        "none",
        "Cells and commands in a day of UTC. One more is `too_many_requests` to the model, and 429 to a client.",
    ),
    key(
        "limits",
        "tokens_per_day_max",
        "none",
        "Tokens in and out in a day of UTC. Those of the request are counted before a turn, what it came to when it is known.",
    ),
    key(
        "limits",
        "requests_per_minute_max",
        "none",
        "Requests that ask a model, count tokens, make a container or a batch, or run a cell. More get 429 with `retry-after`.",
    ),
    key("limits", "input_tokens_per_minute_max", "none", "Tokens in, without what came out of a cache."),
    key("limits", "output_tokens_per_minute_max", "none", "Tokens out."),
    key(
        "workspace",
        "name",
        "required",
        "The workspace that the table is about, as in `belljar keys create --workspace`.",
    ),
    key(
        "workspace",
        "files_max",
        "as in `[limits]`",
        "Files. One more is refused with 400 and `storage_quota_exceeded`.",
    ),
    key(
        "workspace",
        "files_bytes_max",
        "as in `[limits]`",
        "Bytes of all files and named checkpoints, in the place of `serving.workspace_bytes_max`.",
    ),
    key(
        "workspace",
        "containers_max",
        "as in `[limits]`",
        "Live containers. One more puts an idle one on disk; where none is idle, it is refused with 429.",
    ),
    key(
        "workspace",
        "executions_per_day_max",
        "as in `[limits]`",
        "Cells and commands in a day of UTC. One more is `too_many_requests` to the model, and 429 to a client.",
    ),
    key(
        "workspace",
        "tokens_per_day_max",
        "as in `[limits]`",
        "Tokens in and out in a day of UTC. Those of the request are counted before a turn, what it came to when it is known.",
    ),
    key(
        "workspace",
        "requests_per_minute_max",
        "as in `[limits]`",
        "Requests that ask a model, count tokens, make a container or a batch, or run a cell. More get 429 with `retry-after`.",
    ),
    key("workspace", "input_tokens_per_minute_max", "as in `[limits]`", "Tokens in, without what came out of a cache."),
    key("workspace", "output_tokens_per_minute_max", "as in `[limits]`", "Tokens out."),
    key(
        "store",
        "database",
        "\"sqlite\"",
        "Where metadata is kept: `sqlite`, in `data_dir`; or a PostgreSQL (11 or later), as `postgres://user@host:5432/name`, without \
         a password. Beyond this machine TLS is required unless the address says `sslmode=disable`.",
    ),
    key(
        "store",
        "database_url_env",
        "none",
        "Environment variable that holds the whole address, in place of `database`.",
    ),
    key("store", "database_password_env", "none", "Environment variable that holds the password for `database`."),
    key(
        "store",
        "blobs",
        "\"disk\"",
        "Where contents are kept: `disk`, in `data_dir`; or a bucket of an S3-compatible store, as `s3://bucket/prefix`. The bucket \
         has to exist.",
    ),
    key("store", "endpoint", "Amazon's", "Where that store is, as `https://s3.example.org`."),
    key("store", "region", "\"us-east-1\"", "Its region."),
    key("store", "allow_http", "false", "Whether an `endpoint` without TLS may be used."),
    key(
        "store",
        "access_key_id_env",
        "\"AWS_ACCESS_KEY_ID\"",
        "Environment variable that holds the access key. Without one there, the machine's own role is asked for credentials.",
    ),
    key("store", "secret_access_key_env", "\"AWS_SECRET_ACCESS_KEY\"", "Environment variable that holds its secret."),
    key(
        "store",
        "token_env",
        "\"AWS_SESSION_TOKEN\"",
        "Environment variable that holds the token of credentials that end.",
    ),
    key(
        "guard",
        "rule",
        "none",
        "Rules; a list of tables. Code that holds `text` is halted, and the model is told the `reason`.",
    ),
    key("guard.rule", "text", "required", "What the code may not hold."),
    key("guard.rule", "reason", "required", "Why, for the model and the log."),
];

/// Tables whose keys are somebody else's.
pub const FREE_TABLES: &[&str] = &["upstream.aliases", "upstream.body"];

/// The keys of one table.
pub fn of_table(table: &str) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| key.table == table)
}

/// An unknown key's nearest known neighbour.
pub fn nearest(table: &str, unknown: &str) -> Option<&'static str> {
    let scored = of_table(table).map(|key| (strsim::jaro_winkler(key.name, unknown), key.name));
    scored.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
}

/// The reference, as Markdown.
pub fn reference() -> String {
    let mut page = String::from(
        "# Configuration reference\n\nGenerated from `crates/server/src/config/keys.rs`; a test keeps it true. Unknown keys are errors.\n\
         `data_dir` is `$XDG_DATA_HOME/belljar` where that is set, `/var/lib/belljar` for root, else `~/.local/share/belljar`.\n",
    );
    let tables = [
        ("", "Top level"),
        ("upstream", "`[[upstream]]`"),
        ("sandbox", "`[sandbox]`"),
        ("serving", "`[serving]`"),
        ("limits", "`[limits]`"),
        ("workspace", "`[[workspace]]`"),
        ("store", "`[store]`"),
        ("guard", "`[guard]`"),
        ("guard.rule", "`[[guard.rule]]`"),
    ];
    for (table, title) in tables {
        page.push_str(&format!("\n## {title}\n| key | default | meaning |\n|---|---|---|\n"));
        for key in of_table(table) {
            page.push_str(&format!("| `{}` | {} | {} |\n", key.name, code(key.default), key.meaning));
        }
    }
    page.push_str("\n## Environment\n| variable | meaning |\n|---|---|\n");
    for (name, meaning) in super::environment::VARIABLES {
        page.push_str(&format!("| `{name}` | {meaning} |\n"));
    }
    page
}

fn code(default: &str) -> String {
    match default.starts_with(|first: char| first.is_ascii_digit() || first == '"' || first == '[') {
        true => format!("`{default}`"),
        false => default.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_in_the_tree_is_the_generated_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
        if std::env::var_os("BELLJAR_BLESS").is_some() {
            std::fs::write(path, reference()).expect("docs/configuration.md can be written");
        }
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(kept, reference(), "run this test with BELLJAR_BLESS=1 to write the page anew");
    }

    #[test]
    fn the_nearest_key_is_named() {
        assert_eq!(nearest("sandbox", "memory_max_bytes"), Some("memory_bytes_max"));
        assert_eq!(nearest("", "listn"), Some("listen"));
    }
}
