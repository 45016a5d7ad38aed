//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use evo_common::bundle::Bundle;

/// Evo turns APIs into skills for AI agents: it finds them, builds them, runs them, and keeps only
/// those that were measured to work.
#[derive(Debug, Parser)]
#[command(
    name = "evo",
    version,
    after_help = "Start here:\n  evo up --once      run one cycle, print what it came to, and end\n  evo skill list     see the skills\n\nExit codes: 0 done, 1 failed, 2 wrong usage or configuration, 130 interrupted."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start all of Evo in this process and evolve skills.
    Up(UpArgs),
    /// List, show and run skills.
    #[command(subcommand, after_help = "Example: evo skill run evo-king-get-health")]
    Skill(SkillCommand),
    /// Ask for a skill in words and with examples; list, show and cancel what was asked for.
    Learn(Box<LearnArgs>),
    /// List and show runs of the pipeline, and pause, retry, fork and cancel them.
    #[command(subcommand, after_help = "Example: evo runs show latest")]
    Runs(RunsCommand),
    /// Serve the skills in use to an MCP client over standard input and output.
    Mcp(McpArgs),
    /// List the sources that skills come from, and look what one would yield.
    #[command(subcommand, after_help = "Example: evo sources test ./api.yaml")]
    Sources(SourcesCommand),
    /// Check the installation and say what to do.
    Doctor(DoctorArgs),
    /// Ask one service, or one runner, whether it is well.
    Health(HealthArgs),
    /// Run king, the control plane, alone (the same as evo-king).
    King(Box<evo_king::cli::Args>),
    /// Run one agent folder (the same as evo-runner).
    Runner(Box<evo_agents::cli::Args>),
    /// Run the LLM gateway alone (the same as evo-gateway).
    Gateway(evo_gateway::cli::Args),
    /// Become another program that ends with the process that started this one, or guard such
    /// programs. Used by king.
    #[command(hide = true, after_help = "Example: evo child --parent 1 -- evo gateway")]
    Child(evo_king::cli::ChildArgs),
    /// Report runs to Evotown (the same as evo-evotown-bridge).
    Bridge(Box<evo_evotown_bridge::cli::Args>),
}

/// Where the data is.
#[derive(Debug, Clone, Args)]
pub(crate) struct DataArgs {
    /// Data folder [default: the variable EVO_HOME, else ~/.evo].
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
}

/// How to print.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct FormatArgs {
    /// Print one JSON object on stdout; everything else goes to stderr.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `evo up`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  evo up --once\n  evo up --once --json --data /tmp/evo --king-port 0 --gateway-port 0\n  evo up --source shop=./api.yaml --allow-origin http://127.0.0.1:8000"
)]
pub(crate) struct UpArgs {
    /// Run one cycle (or finish the one that was left), print the result and end. Exit code 0 only
    /// if the cycle ended and a skill is active.
    #[arg(long)]
    pub(crate) once: bool,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Learn from this OpenAPI document too, for this start only (repeatable). NAME begins the
    /// names of its skills; by default it is made from the file or host.
    #[arg(long, value_name = "[NAME=]FILE_OR_URL")]
    pub(crate) source: Vec<String>,
    /// An address that the documents of --source may call although it is private or loopback, such
    /// as http://127.0.0.1:8000 (repeatable).
    #[arg(long, value_name = "ORIGIN", requires = "source")]
    pub(crate) allow_origin: Vec<String>,
    /// Port of king; 0 takes a free one [default: the one in config/king.toml, else 3000].
    #[arg(long, value_name = "PORT")]
    pub(crate) king_port: Option<u16>,
    /// Port of the gateway; 0 takes a free one [default: the one in config/gateway.toml,
    /// else 8080].
    #[arg(long, value_name = "PORT")]
    pub(crate) gateway_port: Option<u16>,
    /// Ask for no tokens (loopback only), for runners of the original Evo.
    #[arg(long)]
    pub(crate) open: bool,
}

/// `evo skill …`.
#[derive(Debug, Subcommand)]
pub(crate) enum SkillCommand {
    /// List skills.
    #[command(after_help = "Example: evo skill list --status active")]
    List {
        /// Only skills in this state: candidate, active, held, discarded, failed or archived.
        #[arg(long)]
        status: Option<String>,
        /// Only skills of this source.
        #[arg(long)]
        source: Option<String>,
        /// Only skills of this bundle: a source, or SOURCE/TAG with a tag of its document.
        #[arg(long)]
        bundle: Option<String>,
        #[command(flatten)]
        format: FormatArgs,
        #[command(flatten)]
        data: DataArgs,
    },
    /// Show one skill: versions, decision, evidence.
    #[command(after_help = "Example: evo skill show evo-king-get-health")]
    Show {
        /// Name of the skill.
        name: String,
        #[command(flatten)]
        format: FormatArgs,
        #[command(flatten)]
        data: DataArgs,
    },
    /// Run an active skill and print its answer.
    #[command(
        after_help = "Examples:\n  evo skill run evo-king-get-health\n  evo skill run evo-king-list-runs --set limit=3\n  evo skill run evo-king-list-runs --input '{\"limit\": 3}'"
    )]
    Run {
        /// Name of the skill.
        name: String,
        /// Inputs as one JSON object.
        #[arg(long, value_name = "JSON")]
        input: Option<String>,
        /// One input; wins over --input (repeatable).
        #[arg(long = "set", value_name = "NAME=VALUE")]
        set: Vec<String>,
        #[command(flatten)]
        format: FormatArgs,
        #[command(flatten)]
        data: DataArgs,
    },
    /// Show what was done with a skill's versions: which was in use when, by whom, and why.
    #[command(after_help = "Example: evo skill history shop-list-pets")]
    History {
        #[command(flatten)]
        skill: SkillArgs,
        /// Most entries to print, up to 500.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
        limit: u32,
    },
    /// Show a skill's newest calls.
    #[command(after_help = "Example: evo skill calls shop-list-pets --limit 20")]
    Calls {
        #[command(flatten)]
        skill: SkillArgs,
        /// Most calls to print, up to 500.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
        limit: u32,
    },
    /// Show where a skill's versions come from.
    #[command(after_help = "Example: evo skill lineage shop-list-pets")]
    Lineage(SkillArgs),
    /// Show what differs between two versions of a skill.
    #[command(
        after_help = "Examples:\n  evo skill diff shop-list-pets\n  evo skill diff shop-list-pets --from 0.1.0 --to canary"
    )]
    Diff {
        #[command(flatten)]
        skill: SkillArgs,
        /// The older version: its number, its digest, or active, canary or previous [default: the one
        /// that the newer one was to replace].
        #[arg(long, value_name = "VERSION")]
        from: Option<String>,
        /// The newer version [default: the newest].
        #[arg(long, value_name = "VERSION")]
        to: Option<String>,
    },
    /// List the versions that wait for a person, or show everything about one.
    #[command(
        after_help = "Examples:\n  evo skill approvals\n  evo skill approvals shop-delete-pet"
    )]
    Approvals {
        /// Name of the skill whose version to show.
        name: Option<String>,
        #[command(flatten)]
        format: FormatArgs,
        #[command(flatten)]
        data: DataArgs,
    },
    /// Let the version that waits go into use.
    #[command(
        after_help = "Example: evo skill approve shop-delete-pet --reason \"read the diff\" --by Ada"
    )]
    Approve(ActionArgs),
    /// Discard the version that waits.
    #[command(
        after_help = "Example: evo skill deny shop-delete-pet --reason \"it must not delete\" --by Ada"
    )]
    Deny(ActionArgs),
    /// Keep a skill on the version in use; later versions are measured and wait.
    #[command(
        after_help = "Example: evo skill pin shop-list-pets --reason \"a demonstration today\""
    )]
    Pin(ActionArgs),
    /// Let new versions take over again.
    #[command(after_help = "Example: evo skill unpin shop-list-pets")]
    Unpin(ActionArgs),
    /// Take nothing new of a skill.
    #[command(
        after_help = "Example: evo skill freeze shop-list-pets --reason \"the API is moved\""
    )]
    Freeze(ActionArgs),
    /// Take new versions of a skill again.
    #[command(after_help = "Example: evo skill unfreeze shop-list-pets")]
    Unfreeze(ActionArgs),
    /// Put a skill away; everything that is known of it stays.
    #[command(
        after_help = "Example: evo skill archive shop-list-pets --reason \"nobody needs it\""
    )]
    Archive(ActionArgs),
    /// Bring a skill back from the archive.
    #[command(after_help = "Example: evo skill restore shop-list-pets")]
    Restore(ActionArgs),
    /// Take the last step back: the version that gets a part of the calls gets none, else the version
    /// before is in use again.
    #[command(
        after_help = "Examples:\n  evo skill rollback shop-list-pets --reason \"users complain\"\n  evo skill rollback shop-list-pets --to 0.1.0"
    )]
    Rollback {
        #[command(flatten)]
        action: ActionArgs,
        /// Go back to this version: its number, or its digest or the beginning of that.
        #[arg(long, value_name = "VERSION")]
        to: Option<String>,
    },
    /// Put a version that has passed into use, for all calls.
    #[command(after_help = "Example: evo skill activate shop-list-pets 0.1.2")]
    Activate {
        #[command(flatten)]
        action: ActionArgs,
        /// Its number, or its digest or the beginning of that.
        version: String,
    },
    /// Write the skills in use into a folder, one folder per skill, each with its SKILL.md.
    #[command(
        after_help = "Examples:\n  evo skill export ./skills\n  evo skill export ./skills --bundle petstore/pets"
    )]
    Export(ExportArgs),
    /// Bring skills as candidates: a folder of folders that each hold a SKILL.md, or an archive of one.
    /// They are built, checked and measured like every other; a person decides about their use.
    #[command(
        after_help = "Examples:\n  evo skill import ./skills\n  evo skill import skills.tar.gz"
    )]
    Import(ImportArgs),
    /// Overrule a finding of the scan for one package; what it ended goes on.
    #[command(
        after_help = "Example: evo skill overrule shop-list-pets raw_ip --reason \"our own address\" --by Ada"
    )]
    Overrule {
        #[command(flatten)]
        action: ActionArgs,
        /// The finding's code, as `evo runs show` prints it.
        code: String,
        /// Which version [default: the newest].
        #[arg(long, value_name = "VERSION")]
        version: Option<String>,
    },
}

/// `evo skill export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The folder, which is new or empty.
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
    /// The skills of this bundle as one skill: a source, or SOURCE/TAG with a tag of its document.
    #[arg(long)]
    pub(crate) bundle: Option<String>,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
    #[command(flatten)]
    pub(crate) data: DataArgs,
}

/// `evo skill import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// A folder, a .tar, .tar.gz or .zip, or one SKILL.md.
    #[arg(value_name = "DIR|FILE")]
    pub(crate) from: PathBuf,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
    #[command(flatten)]
    pub(crate) data: DataArgs,
}

/// `evo learn`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  evo learn \"Convert Fahrenheit to Celsius\" --examples examples.jsonl --wait\n  evo learn \"Answer for cities without a country\" --skill weather-get --examples more.toml\n  evo learn --list --status open\n  evo learn --show latest\n  evo learn --start\n  evo learn --cancel req-0199aa00000070008000000000000001 --reason \"not needed\"\n\nA file of examples is JSON (a list), JSON lines, or TOML ([[examples]]); one is\n  {\"input\": {\"f\": 212}, \"output\": 100}\n  {\"input\": {\"f\": 32}, \"expect\": {\"exact\": 0, \"tolerance\": 0.01}}"
)]
pub(crate) struct LearnArgs {
    /// What is wanted, in words.
    #[arg(value_name = "TEXT", conflicts_with_all = ["list", "show", "cancel"])]
    pub(crate) text: Option<String>,
    /// File with inputs and what is expected of them.
    #[arg(long, value_name = "FILE", requires = "text")]
    pub(crate) examples: Option<PathBuf>,
    /// The skill that is to become better; without it a new one is wanted.
    #[arg(long, value_name = "NAME", requires = "text")]
    pub(crate) skill: Option<String>,
    /// Run a cycle about it to its end. Exit code 0 only if a skill answers it.
    #[arg(long, requires = "text")]
    pub(crate) wait: bool,
    /// Start no cycle; the next one takes it.
    #[arg(long, requires = "text", conflicts_with = "wait")]
    pub(crate) no_start: bool,
    /// Run a cycle to its end about what was asked for and is open: one request, or without ID all
    /// of them, those of failing calls too. Exit code 0 only if all of them are answered.
    #[arg(long, value_name = "ID", num_args = 0..=1, default_missing_value = "", conflicts_with_all = ["text", "list", "show", "cancel"])]
    pub(crate) start: Option<String>,
    /// List what was asked for, newest first.
    #[arg(long, conflicts_with_all = ["show", "cancel"])]
    pub(crate) list: bool,
    #[command(flatten)]
    pub(crate) filter: LearnFilter,
    /// Show one request; `latest` is the newest.
    #[arg(long, value_name = "ID", conflicts_with = "cancel")]
    pub(crate) show: Option<String>,
    /// Take a request back; runs about it end.
    #[arg(long, value_name = "ID")]
    pub(crate) cancel: Option<String>,
    /// Why, for the record.
    #[arg(long, value_name = "WHY", requires = "cancel")]
    pub(crate) reason: Option<String>,
    /// Who, for the record [default: the name of the token].
    #[arg(long, value_name = "NAME")]
    pub(crate) by: Option<String>,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
    #[command(flatten)]
    pub(crate) data: DataArgs,
}

/// Which requests to list.
#[derive(Debug, Args)]
pub(crate) struct LearnFilter {
    /// Only those that are open, taken, answered, rejected or cancelled.
    #[arg(long, requires = "list")]
    pub(crate) status: Option<String>,
    /// Only `new` ones, or only those for a `repair`.
    #[arg(long, requires = "list")]
    pub(crate) kind: Option<String>,
    /// Most requests to print, up to 500.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
    pub(crate) limit: u32,
}

/// Which skill.
#[derive(Debug, Args)]
pub(crate) struct SkillArgs {
    /// Name of the skill.
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
    #[command(flatten)]
    pub(crate) data: DataArgs,
}

/// What is done to which skill.
#[derive(Debug, Args)]
pub(crate) struct ActionArgs {
    /// Name of the skill.
    pub(crate) name: String,
    /// Why, for the record.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// Who does it, for the record [default: the name of the token].
    #[arg(long, value_name = "NAME")]
    pub(crate) by: Option<String>,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
    #[command(flatten)]
    pub(crate) data: DataArgs,
}

/// `evo runs …`.
#[derive(Debug, Subcommand)]
pub(crate) enum RunsCommand {
    /// List runs, newest first.
    #[command(
        after_help = "Examples:\n  evo runs list --kind cycle\n  evo runs list --search \"petstore flaky\" --decision held"
    )]
    List {
        #[command(flatten)]
        filter: RunsFilter,
        /// Most runs to print; 0 prints all.
        #[arg(long, default_value_t = 50)]
        limit: usize,
        #[command(flatten)]
        format: FormatArgs,
        #[command(flatten)]
        data: DataArgs,
    },
    /// Show one run with its stages.
    #[command(after_help = "Example: evo runs show latest")]
    Show(RunArgs),
    /// Give nothing new of a run to runners; an attempt that is under way may finish. Of a cycle
    /// the same goes for its candidates.
    #[command(after_help = "Example: evo runs pause latest")]
    Pause(RunArgs),
    /// Let a paused run, and of a cycle its candidates, go on.
    #[command(after_help = "Example: evo runs resume latest")]
    Resume(RunArgs),
    /// Repeat a run that failed from the stage on that it failed at, as a new run.
    #[command(after_help = "Example: evo runs retry run-0199aa00000070008000000000000001")]
    Retry(RunArgs),
    /// Start a run that repeats another one from a stage on, with copies of what came before.
    #[command(
        after_help = "Example: evo runs fork run-0199aa00000070008000000000000001 --from evaluation"
    )]
    Fork {
        #[command(flatten)]
        run: RunArgs,
        /// The stage that it begins with: learning, building, pre_load, evaluation or skill_manage.
        #[arg(long, value_name = "STAGE")]
        from: String,
        /// What starts it, as JSON, when that is not what started the first one.
        #[arg(long, value_name = "JSON")]
        trigger: Option<String>,
    },
    /// End a run, and of a cycle its candidates. The runner at work is told.
    #[command(after_help = "Example: evo runs cancel latest")]
    Cancel(RunArgs),
    /// Show who waits for which runners.
    #[command(after_help = "Example: evo runs queues")]
    Queues {
        #[command(flatten)]
        format: FormatArgs,
        #[command(flatten)]
        data: DataArgs,
    },
    /// List runs that failed and that nobody has retried or put aside.
    #[command(
        after_help = "Examples:\n  evo runs dead-letters\n  evo runs dead-letters --dismiss run-0199aa00000070008000000000000001"
    )]
    DeadLetters {
        /// Put this one aside first.
        #[arg(long, value_name = "RUN")]
        dismiss: Option<String>,
        /// Most runs to print, up to 500.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
        limit: u32,
        #[command(flatten)]
        format: FormatArgs,
        #[command(flatten)]
        data: DataArgs,
    },
    /// Print everything about a run as one JSON object.
    #[command(after_help = "Example: evo runs export latest > run.json")]
    Export(RunArgs),
}

/// Which run.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Id of the run, or `latest` for the newest cycle.
    pub(crate) run: String,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
    #[command(flatten)]
    pub(crate) data: DataArgs,
}

/// Which runs to list.
#[derive(Debug, Args)]
pub(crate) struct RunsFilter {
    /// Only `cycle`, `candidate` or `direct` runs.
    #[arg(long)]
    pub(crate) kind: Option<String>,
    /// Only the runs of this cycle.
    #[arg(long, value_name = "RUN")]
    pub(crate) cycle: Option<String>,
    /// Only runs that are `running`, `completed`, `failed` or `timed_out`.
    #[arg(long)]
    pub(crate) status: Option<String>,
    /// Only runs that are at this stage, or ended there.
    #[arg(long)]
    pub(crate) stage: Option<String>,
    /// Only runs that are `active`, `held`, `discarded` or `failed`.
    #[arg(long)]
    pub(crate) decision: Option<String>,
    /// Only runs that ended with this code.
    #[arg(long)]
    pub(crate) code: Option<String>,
    /// Only runs that started then or later (RFC 3339).
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Only runs that started before (RFC 3339).
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// Only runs with all of these words in candidate, code, reason, id or trigger.
    #[arg(long, value_name = "WORDS")]
    pub(crate) search: Option<String>,
}

/// `evo mcp`.
#[derive(Debug, Args)]
#[command(
    after_help = "Clients start this program themselves; Evo has to run (evo up), here or elsewhere.\n\nExamples:\n  Claude Code:     claude mcp add evo -- evo mcp\n  Codex:           codex mcp add evo -- evo mcp\n  Claude Desktop, in claude_desktop_config.json:\n    {\"mcpServers\": {\"evo\": {\"command\": \"evo\", \"args\": [\"mcp\"]}}}\n  Another machine: EVO_TOKEN_INVOKE=evo_iv_… evo mcp --king https://evo.example\n\nThe token is EVO_TOKEN_INVOKE, else the invoke token of the file that --token-file or\nEVO_TOKENS_FILE names, else of the data folder. Clients that speak streamable HTTP can use\nking's /mcp directly; docs/mcp.md has their configuration."
)]
pub(crate) struct McpArgs {
    /// Base URL of king [default: the variable KING_ADDRESS unless --data is there, else the instance on
    /// the data folder].
    #[arg(long, value_name = "URL")]
    pub(crate) king: Option<String>,
    /// The file that holds the tokens (tokens.toml).
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Offer the skills of this bundle only: a source, or SOURCE/TAG with a tag of its document.
    #[arg(long)]
    pub(crate) bundle: Option<Bundle>,
    #[command(flatten)]
    pub(crate) data: DataArgs,
}

/// `evo sources …`.
#[derive(Debug, Subcommand)]
pub(crate) enum SourcesCommand {
    /// List the configured sources.
    #[command(after_help = "Example: evo sources list --json")]
    List {
        #[command(flatten)]
        format: FormatArgs,
        #[command(flatten)]
        data: DataArgs,
    },
    /// Write a source into config/sources.toml, checked as king would. A running instance looks there when
    /// it is started again.
    #[command(
        after_help = "Examples:\n  evo sources add petstore https://example.com/openapi.json\n  evo sources add local ./api.yaml --allow-origin http://127.0.0.1:8000\n  evo sources add time --allow-env TZ -- mcp-server-time --local-timezone UTC"
    )]
    Add(Box<AddSource>),
    /// Look into a source without starting anything: its candidates, their cases, and why one would
    /// not be measured. Nothing is built or called, but the tools of an MCP server are listed.
    #[command(
        after_help = "Examples:\n  evo sources test\n  evo sources test petstore\n  evo sources test ./skills\n  evo sources test https://example.com/openapi.json --json\n\nExit codes: 0 something would be measured, 1 a source can't be read or nothing in it would be, 2 wrong\nusage."
    )]
    Test {
        /// A configured source, a file, a folder, a repository (git+https://…) or an address; by
        /// default every source that is switched on.
        #[arg(value_name = "NAME|FILE|URL")]
        target: Option<String>,
        /// What a file or address is: openapi, skill_md, mcp or feed [default: what it looks like].
        #[arg(long, value_name = "KIND", requires = "target")]
        kind: Option<String>,
        /// A private or loopback address that a file or address may name (repeatable).
        #[arg(long, value_name = "ORIGIN", requires = "target")]
        allow_origin: Vec<String>,
        #[command(flatten)]
        format: FormatArgs,
        #[command(flatten)]
        data: DataArgs,
    },
}

/// `evo sources add`.
#[derive(Debug, Args)]
pub(crate) struct AddSource {
    /// Its name, the first part of its skills' names.
    pub(crate) name: String,
    /// A file, a folder, a repository (git+https://…) or an address; of a program that serves MCP the folder
    /// that it is started in.
    #[arg(value_name = "FILE|URL", required_unless_present = "command")]
    pub(crate) location: Option<String>,
    /// The program of an MCP server, with its arguments.
    #[arg(last = true, value_name = "PROGRAM")]
    pub(crate) command: Vec<String>,
    /// What it is: openapi, skill_md, mcp or feed [default: what it looks like].
    #[arg(long, value_name = "KIND")]
    pub(crate) kind: Option<String>,
    /// Where its skills call, instead of what the document says.
    #[arg(long, value_name = "URL")]
    pub(crate) base_url: Option<String>,
    /// A private or loopback address that its skills may call (repeatable).
    #[arg(long, value_name = "ORIGIN")]
    pub(crate) allow_origin: Vec<String>,
    /// An operation that may be executed although it may change something (repeatable).
    #[arg(long, value_name = "OPERATION")]
    pub(crate) allow_operation: Vec<String>,
    /// An environment variable that its skills may use, or that its program gets (repeatable).
    #[arg(long, value_name = "NAME")]
    pub(crate) allow_env: Vec<String>,
    /// The environment variable that holds its token.
    #[arg(long, value_name = "NAME")]
    pub(crate) auth_ref: Option<String>,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
    #[command(flatten)]
    pub(crate) data: DataArgs,
}

/// `evo doctor`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  evo doctor --data /tmp/evo\n  evo doctor --fix\n\nExit codes: 0 nothing is a problem (any more), 1 something is."
)]
pub(crate) struct DoctorArgs {
    /// Do what is safe: create missing folders, tokens and configuration files, make tokens readable
    /// for their owner only, remove what a killed process left behind.
    #[arg(long)]
    pub(crate) fix: bool,
    /// Port that king is to have [default: the one that `evo up` would take].
    #[arg(long, value_name = "PORT")]
    pub(crate) king_port: Option<u16>,
    /// Port that the gateway is to have [default: the one that `evo up` would take].
    #[arg(long, value_name = "PORT")]
    pub(crate) gateway_port: Option<u16>,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
    #[command(flatten)]
    pub(crate) data: DataArgs,
}

/// `evo health`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  evo health\n  evo health http://gateway:8080\n  evo health http://king:3000 --agent evo-learning\n\nExit codes: 0 it is well, 1 it is not or does not answer. --agent needs the viewer token: from\nEVO_TOKEN_VIEWER, the file that EVO_TOKENS_FILE names, or the data folder."
)]
pub(crate) struct HealthArgs {
    /// Base URL of king or of a gateway.
    #[arg(value_name = "URL", env = "KING_ADDRESS", default_value = "http://127.0.0.1:3000")]
    pub(crate) url: String,
    /// Ask this king whether the runner with this id is connected and ready.
    #[arg(long, value_name = "ID")]
    pub(crate) agent: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Cli;

    #[test]
    fn the_definition_is_valid() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_help_and_an_example() {
        fn check(command: &clap::Command, path: &str) {
            assert!(command.get_about().is_some(), "{path} has no help");
            for sub in command.get_subcommands() {
                check(sub, &format!("{path} {}", sub.get_name()));
            }
            if command.get_subcommands().next().is_none() {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Example"), "{path} has no example");
            }
        }
        check(&Cli::command(), "evo");
    }
}
