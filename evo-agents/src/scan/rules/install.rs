//! What a skill fetches and runs, and what it has people install.

use evo_common::stage::Severity::{High, Warning};

use super::{BASE, Reach, Rule, Where};

/// Hosts whose installers everybody runs without looking.
pub(in super::super) const VENDORS: &str = concat!(
    r"https?://(?:[\w-]+\.)*(?:rustup\.rs|docker\.com|deno\.land|deno\.com|bun\.sh|astral\.sh|sh\.rustup\.rs|python-poetry\.org|helm\.sh|k3s\.io|k3d\.io|pnpm\.io|ollama\.(?:com|ai)",
    r"|tailscale\.com|nodesource\.com|claude\.ai|openclaw\.ai|clawd\.bot|molt\.bot|paradigm\.xyz|starship\.rs|fly\.io|sdkman\.io|pypa\.io|duckdb\.org|cursor\.com|cursor\.sh|volta\.sh|scoop\.sh",
    r"|chocolatey\.org|brew\.sh|mise\.run|jdx\.dev|jetify\.com|jetpack\.io|nixos\.org|determinate\.systems|opencode\.ai|pulumi\.com|sentry\.io|doppler\.com|nushell\.sh|anza\.xyz|solana\.com|solanalabs\.com",
    r"|modal\.com|trunk\.io|temporal\.download|taskfile\.dev|zed\.dev|code-server\.dev|google\.com|googleapis\.com|microsoft\.com|aka\.ms|powershell\.org|awscli\.amazonaws\.com|amazon\.com|cloudflare\.com|vercel\.com|netlify\.com",
    r"|supabase\.com|railway\.(?:app|com)|render\.com|heroku\.com|hashicorp\.com|istio\.io|linkerd\.io|datadoghq\.com|newrelic\.com|grafana\.com|elastic\.co|huggingface\.co|hf\.co|continuum\.io|anaconda\.com|conda\.io|prefix\.dev|pixi\.sh|pypi\.org|npmjs\.(?:com|org)",
    r"|yarnpkg\.com|golang\.org|go\.dev|ziglang\.org|dlang\.org|julialang\.org|haskell\.org|elixir-lang\.org|ghcup\.haskell\.org|opam\.ocaml\.org|ocaml\.org|swift\.org|kotlinlang\.org|gradle\.org|apache\.org|mongodb\.com|postgresql\.org|mysql\.com|redis\.io|clickhouse\.com|cockroachlabs\.com|questdb\.io|timescale\.com|turso\.tech|tur\.so|planetscale\.com|neon\.tech|prisma\.io",
    r"|anthropic\.com|openai\.com|ntn\.dev|nousresearch\.com|lambdalabs\.com|githubusercontent\.com/(?:nvm-sh|homebrew|ohmyzsh|rbenv|pyenv|helm|k3d-io|anthropics|openclaw|openai|microsoft|google\w*|aws|docker|rancher|kubernetes|istio|github|cli|golangci|junegunn|asdf-vm|tj|sdkman|rust-lang|denoland|oven-sh|vercel\w*|cloudflare|hashicorp|astral-sh|pnpm|yarnpkg|npm|nodejs|python|git-lfs|anchore|aquasecurity|trufflesecurity|gitleaks|ajeetdsouza|neovim|dracula|starship|zsh-users|ml-explore|ollama|huggingface|pytorch|tensorflow|apache|elastic|grafana|prometheus|cncf|buildkite|codecov|release-it)|kernel\.org|debian\.org|ubuntu\.com|archlinux\.org|alpinelinux\.org|fedoraproject\.org|gnu\.org|mozilla\.org|apple\.com|jetbrains\.com|nvidia\.com|intel\.com|oracle\.com|ibm\.com|adobe\.com|atlassian\.com|stripe\.(?:com|dev)|shopify\.(?:com|dev)|twilio\.com|slack\.com|notion\.(?:so|com)|figma\.com|linear\.app|meilisearch\.com|qdrant\.(?:io|tech)|weaviate\.io|dagger\.io|earthly\.dev|bazel\.build|buildpacks\.io|sigstore\.dev|anchore\.io|trivy\.dev|snyk\.io|semgrep\.dev|sonarsource\.com|gitguardian\.com|1password\.com|bitwarden\.com|letsencrypt\.org|acme\.sh|ohmyz\.sh|get\.sdkman\.io|x\.ai|mistral\.ai|groq\.com|replicate\.com|factory\.ai|ampcode\.com|codeium\.com|sourcegraph\.com|warp\.dev|goose\.sh|block\.xyz|aider\.chat|letta\.com|llamaindex\.ai|langchain\.com)(?:[/\s'\x22`)|:?]|$)"
);

pub(super) static RULES: &[Rule] = &[
    Rule {
        code: "download_and_run",
        message: "something from a raw address, paste site, link shortener or tunnel is run",
        needs: &[
            "curl",
            "wget",
            "iwr",
            "irm",
            "invoke-webrequest",
            "invoke-restmethod",
            "fetch",
            "lynx",
            "aria2c",
            "downloadstring",
            "lwp-request",
        ],
        pattern: concat!(fetcher!(), r"[^\n]{0,300}?", shady_url!(), r"[^\n]{0,300}", pipe_run!()),
        ..BASE
    },
    Rule {
        code: "download_and_run",
        message: "something from a raw address, paste site, link shortener or tunnel is run",
        needs: &["<(", "$(", "`", "iex", "invoke-expression", "eval"],
        pattern: concat!(
            r"(?:(?:\b(?:ba|z|da|k)?sh|source|python[\d.]*|perl|node|ruby|php)\b[^\n]{0,20}<\(\s*|(?:^|[\s;&|'\x22(])\.\s+<\(\s*|\beval\s+[\x22']?(?:\$\(|`)\s*|\b(?:ba|z|da)?sh\s+-\w*c\s+[\x22']?(?:\$\(|`)\s*|\b(?:iex|invoke-expression)\b[^\n]{0,60})",
            r"[^\n]{0,80}?",
            fetcher!(),
            r"[^\n]{0,200}?",
            shady_url!()
        ),
        ..BASE
    },
    Rule {
        code: "download_and_run",
        message: "a file from a raw address, paste site, link shortener or tunnel is stored and then run",
        needs: &[
            "chmod",
            "./",
            "bash ",
            "sh ",
            "python",
            "start-process",
            "&& ",
            "subprocess",
            "os.system",
            "exec(",
            "execsync",
            "spawn(",
            "open ",
            "msiexec",
            "rundll32",
            "load(",
        ],
        pattern: concat!(
            r"(?s)",
            fetcher!(),
            r".{0,200}?",
            shady_url!(),
            r".*?(?:chmod\s+(?:\+?[0-7]*[157][0-7]{0,2}|[ugoa]*\+\w*x)|(?:^|[\s;&|])\./[\w.-]+|\b(?:ba|z|da)?sh\s+[/~.$\x22\w-]+|\bpython[\d.]*\s+[/~.$\w-]+|start-process|os\.system|subprocess\.\w+|execsync|spawn\(|os\.startfile|os\.chmod|rundll32|msiexec|\bopen\s+/tmp|\bexec\(|nohup|(?:&&|;)\s*(?:~|\$\{?home\}?|/tmp|/opt|\.)/[\w./-]+)"
        ),
        reach: Reach::Around(8, 4),
        ..BASE
    },
    Rule {
        code: "download_and_run",
        message: "code from the network is executed by the interpreter",
        needs: &[
            "exec(",
            "eval(",
            "eval ",
            "function(",
            "compile(",
            "new function",
            "loadstring",
            "instance_eval",
            "vm.runin",
            "runinthiscontext",
            "importlib",
            "require(",
        ],
        pattern: concat!(
            r"(?:\b(?:exec|eval|compile|loadstring|load|function|instance_eval|class_eval|runinthiscontext|runinnewcontext|vm\.run\w+)\s*\(?\s*[^\n;]{0,100}?",
            r"(?:urlopen\(|requests\.get\(|httpx\.get\(|urllib2?\.|http\.client|await\s+fetch\(|\bfetch\(|axios\.get\(|file_get_contents\(\s*['\x22]?(?:https?:|\$)|net::http|open-uri|uri\.open\(|\bopen\(\s*['\x22]https?:|lwp::simple|\bget\s*\(?\s*['\x22]https?:|http\.get\(|request\(['\x22]https?:|response\.text|\.execsync\([^\n]{0,10}curl))"
        ),
        unless: r"model\.eval|\.eval\(\)|json\.|cursor\.exec|page\.eval|regexp?\.exec|re\.compile\(|\bpattern",
        place: Where::Code,
        ..BASE
    },
    Rule {
        code: "download_and_run",
        message: "the answer of a server is executed",
        needs: &["exec(", "eval(", "new function", "function("],
        pattern: concat!(
            r"(?s)(?:requests\.get\(|httpx\.get\(|urlopen\(|\bfetch\(|axios\.get\(|http\.get\(|https\.get\(|file_get_contents\(\s*['\x22]http).*?",
            r"(?:^|[^\w.])(?:exec|eval)\(\s*(?:compile\(\s*)?(?:\w*(?:code|payload|script|body|data|resp|response|res|content|text|src|source|remote|stage\d?|r)\w*)(?:\.text|\.content|\.read\(\)|\.decode\([^)]*\)|\.data|\.body)*\s*[,)]"
        ),
        reach: Reach::Around(14, 0),
        place: Where::Code,
        ..BASE
    },
    Rule {
        code: "download_and_run",
        message: "a system tool of Windows or macOS is used to fetch and run something",
        needs: &[
            "certutil",
            "bitsadmin",
            "mshta",
            "regsvr32",
            "rundll32",
            "msiexec",
            "wmic",
            "osascript",
            "cscript",
            "wscript",
            "installutil",
            "msbuild",
            "hh.exe",
            "desktopimgdownldr",
            "finger ",
            "curl.exe",
        ],
        pattern: concat!(
            r"\bcertutil(?:\.exe)?\b[^\n]{0,60}-(?:urlcache|verifyctl|ping)\b|\bbitsadmin(?:\.exe)?\b[^\n]{0,80}/(?:transfer|addfile)|\bmshta(?:\.exe)?\s+[\x22']?(?:https?:|javascript:|vbscript:)",
            r"|\bregsvr32(?:\.exe)?\b[^\n]{0,60}/i:https?|\brundll32(?:\.exe)?\b[^\n]{0,40}(?:javascript:|https?:|url\.dll)|\bmsiexec(?:\.exe)?\b[^\n]{0,40}/(?:i|package)\s*[\x22']?https?://(?:[^\n]{0,200}/q)?",
            r"|\bwmic\b[^\n]{0,60}process\s+call\s+create|\bosascript\b[^\n]{0,60}do shell script[^\n]{0,120}(?:curl|wget|base64|/tmp/)|\b[cw]script(?:\.exe)?\b[^\n]{0,60}https?:|desktopimgdownldr[^\n]{0,80}https?:|\bfinger\s+\S+@\S+\s*\|"
        ),
        ..BASE
    },
    Rule {
        code: "download_and_run",
        message: "a script is fetched and run out of sight of PowerShell's policy or window",
        needs: &["powershell", "pwsh", "iex", "invoke-expression"],
        pattern: concat!(
            r"\b(?:powershell|pwsh)(?:\.exe)?\b[^\n]{0,120}?-(?:w(?:indowstyle)?\s+h(?:idden)?|enc?\b|e\s)[^\n]{0,200}(?:downloadstring|downloadfile|iwr|irm|invoke-webrequest|https?:)",
            r"|(?:iex|invoke-expression)\b[^\n]{0,80}(?:new-object\s+(?:system\.)?net\.webclient|webclient\)?\.downloadstring)[^\n]{0,120}|downloadstring\([^\n]{0,200}\)[^\n]{0,40}\|\s*(?:iex|invoke-expression)\b"
        ),
        unless: VENDORS,
        ..BASE
    },
    Rule {
        code: "download_and_run",
        message: "a download is run while its output is hidden",
        needs: &["nohup", "/dev/null", "disown", "-windowstyle", "setsid"],
        pattern: concat!(
            r"(?:\bcurl\b|\bwget\b)[^\n]{0,300}https?://[^\n]{0,200}",
            pipe_run!(),
            r"?[^\n]{0,60}(?:\d?>\s*/dev/null\s+(?:2>&1\s*)?&\s*(?:$|[^&])|&>\s*/dev/null\s*&|disown|&\s*disown)|(?:nohup|setsid)\b[^\n]{0,60}(?:curl|wget)[^\n]{0,200}",
            pipe_run!()
        ),
        unless: r"-o\s*/dev/null|localhost|%\{",
        ..BASE
    },
    Rule {
        code: "download_and_run",
        message: "a download without encryption is run",
        needs: &["http://"],
        pattern: concat!(
            r"\b(?:curl|wget|iwr|irm)\b[^\n|]{0,200}http://[^\n|]{0,200}",
            pipe_run!()
        ),
        unless: r"http://(?:localhost|[\w-]+:\d+|[<\[{$])",
        ..BASE
    },
    Rule {
        code: "download_and_run",
        message: "what runs when the package is installed fetches something or runs encoded text",
        needs: &["preinstall", "postinstall", "\"install\"", "prepare\""],
        pattern: r#""(?:pre|post)?install"\s*:\s*"[^\n]{0,300}(?:\bcurl\b|\bwget\b|node\s+-e|powershell|base64|python[\d.]*\s+-c|https?://|/tmp/|\|\s*(?:ba)?sh)"#,
        ..BASE
    },
    Rule {
        code: "download_and_run",
        message: "an installer is written so that it downloads or starts something while the package is set up",
        needs: &["cmdclass"],
        pattern: r"(?s)(?:os\.system|subprocess|urlopen|requests\.(?:get|post)|exec\(|socket\.socket).{0,1500}cmdclass\s*=",
        reach: Reach::Around(40, 0),
        place: Where::Script,
        ..BASE
    },
    Rule {
        code: "shell_pipe",
        severity: Warning,
        message: "a download is run without being looked at",
        needs: &["curl", "wget", "iwr", "irm", "invoke-webrequest"],
        pattern: concat!(
            r"\b(?:curl|wget)\b[^\n|]{0,300}",
            pipe_run!(),
            r"|(?:\b(?:ba|z|da)?sh\b[^\n]{0,12}<\(|\b(?:ba|z|da)?sh\s+(?:-\w*c|<<<)\s+[\x22']?\$\(|\beval\s+[\x22']?\$\(|(?:^|\s)(?:\.|source)\s+<\()\s*(?:curl|wget)\b[^\n]{0,200}|\b(?:iwr|irm|invoke-webrequest|invoke-restmethod)\b[^\n|]{0,200}\|\s*(?:iex|invoke-expression)\b|\b(?:iex|invoke-expression)\b[\s\x22'(&{]{1,6}(?:iwr|irm|invoke-webrequest|invoke-restmethod)\b[^\n]{0,200}"
        ),
        unless: VENDORS,
        ..BASE
    },
    Rule {
        code: "download_and_run",
        message: "a script fetches a program from a host that is no known vendor's and runs it",
        needs: &["curl", "wget"],
        pattern: concat!(
            r"\b(?:curl|wget)\b[^\n|]{0,300}https?://[^\n|]{0,200}",
            pipe_run!(),
            r"|(?:\b(?:ba|z|da)?sh\b[^\n]{0,12}<\(|\b(?:ba|z|da)?sh\s+-\w*c\s+[\x22']?\$\(|\beval\s+[\x22']?\$\()\s*(?:curl|wget)\b[^\n]{0,100}https?://"
        ),
        unless: VENDORS,
        place: Where::Script,
        ..BASE
    },
    Rule {
        code: "untrusted_packages",
        message: "packages are installed from a raw address, paste site, tunnel or without encryption",
        needs: &[
            "pip",
            "npm",
            "pnpm",
            "yarn",
            "gem ",
            "cargo",
            "npx",
            "bunx",
            "uvx",
            "go install",
            "go run",
            "deno",
            "brew",
            "apt",
            "index-url",
            "registry",
        ],
        pattern: concat!(
            r"(?:\b(?:pip[\d.]*|uv\s+pip|pipx|poetry|uvx)\b[^\n]{0,80}(?:install|add|run)?|\b(?:npm|pnpm|yarn|bun)\s+(?:i|install|add|config|set)\b|\b(?:npx|bunx)\b|\bgem\s+install\b|\bcargo\s+install\b|\bgo\s+(?:install|run|get)\b|\bdeno\s+(?:run|install)\b|\bbrew\s+(?:install|tap)\b|\bdpkg\s+-i\b|index-url\s*=?|registry\s*[= ])[^\n]{0,120}?",
            shady_url!()
        ),
        ..BASE
    },
    Rule {
        code: "untrusted_packages",
        severity: Warning,
        message: "packages come from an index that is not the usual one",
        needs: &["index-url", "--registry", "trusted-host", "--find-links"],
        pattern: r"--(?:extra-)?index-url[= ]\s*[\x22']?https?://|--registry[= ]\s*[\x22']?https?://|--trusted-host\b|--find-links[= ]\s*[\x22']?https?://",
        unless: r"pypi\.org|download\.pytorch\.org|pypi\.nvidia\.com|registry\.npmjs\.org|npm\.pkg\.github\.com|localhost|huggingface|astral\.sh|gitlab\.com|pkg\.dev|npmmirror|tsinghua|aliyun|ustc|wheels\.|amazonaws",
        ..BASE
    },
    Rule {
        code: "fake_prerequisite",
        message: "it has its reader get a program from where nobody publishes one, before anything else works",
        needs: &[
            "download",
            "install",
            "visit",
            "navigate",
            "go to",
            "open this",
            "copy",
            "paste",
            "get it from",
            "obtain",
            "grab",
        ],
        pattern: concat!(
            r"(?s)\b(?:prerequisites?|pre-requisites?|before (?:you|using|running|first|any|proceeding|this|the|we|start)|requires? (?:the|a|an|that)|required\b|must (?:first )?(?:be )?(?:install|download|run|have)|(?:will|does|do) not (?:work|function)|won't work|cannot (?:work|function|run)|mandatory|needed (?:to|for|before)|first[, ]+(?:install|download|run)|setup|installation|important|depends on|core (?:utility|component|dependency))",
            r".*?(?:\b(?:download|install|visit|navigate|go to|open|copy|paste|fetch|obtain|grab|get)\b).{0,200}?",
            r"(?:",
            paste_host!(),
            r"|",
            drop_host!(),
            r"|https?://(?:",
            raw_address!(),
            r"|",
            telling_host!(),
            r")|https?://",
            short_host!(),
            r"/)",
            r".*?\b(?:run|execute|launch|open|double-click|paste|install|terminal|powershell|command|password|pass)\b"
        ),
        unless: "collaborat",
        reach: Reach::Around(6, 8),
        place: Where::Prose,
        ..BASE
    },
    Rule {
        code: "fake_prerequisite",
        message: "it has its reader download a program by hand and start it before anything else works",
        needs: &[
            ".zip",
            ".exe",
            ".msi",
            ".dmg",
            ".pkg",
            ".scr",
            ".bat",
            ".rar",
            ".7z",
            ".iso",
            ".apk",
            ".appimage",
            ".ps1",
            ".vbs",
            ".jar",
            ".app",
        ],
        pattern: concat!(
            r"(?s)\b(?:prerequisites?|before (?:you|using|running|first|any|proceeding|this|the)|requires? (?:the|a|an|that)|required|must (?:first )?(?:be )?(?:install|download|run)|(?:will|does|do) not (?:work|function)|won't work|cannot (?:work|function)|mandatory|important)",
            r".*?\b(?:download|get|grab|fetch|install|obtain)\b.{0,250}?[\w\])]\.(?:zip|rar|7z|exe|msi|dmg|pkg|scr|bat|iso|apk|ps1|vbs)\b.{0,250}?\b(?:(?:extract|unzip|unpack)[^\n]{0,120}(?:run|execute|launch|start|open)|(?:run|execute|launch|start) (?:the |it\b|this |that |as )?(?:executable|file|binary|installer|program|setup|it\b|[\w-]+\.exe|as admin\w*|before)|double-click|disable (?:your )?(?:antivirus|defender))"
        ),
        unless: r"https?://(?:[\w-]+\.)*(?:microsoft\.com|apple\.com|nodejs\.org|python\.org|git-scm\.com|docker\.com|google\.com|obsidian\.md|ollama\.com|visualstudio\.com|adobe\.com|blender\.org|jetbrains\.com|imagemagick\.org|ffmpeg\.org|gyan\.dev|libreoffice\.org|oracle\.com|winehq\.org|postgresql\.org|anaconda\.com|rust-lang\.org|mozilla\.org|android\.com)",
        reach: Reach::Around(8, 8),
        place: Where::Prose,
        ..BASE
    },
    Rule {
        code: "fake_prerequisite",
        message: "it has its reader copy a command from a web page into a terminal",
        needs: &[
            "terminal",
            "powershell",
            "command prompt",
            "cmd",
            "run dialog",
            "win+r",
            "windows + r",
            "windows+r",
            "konsole",
            "console",
        ],
        pattern: concat!(
            r"(?s)(?:visit|open|go to|navigate to|see|follow|head (?:over )?to|browse to)\s.{0,40}?(?:this|the)?\s*(?:page|link|site|url|snippet|https?://|\[).{0,200}?\b(?:copy|execute|run|paste)\b.{0,80}?\b(?:command|script|code|snippet|one-liner)\b.{0,100}?\b(?:terminal|powershell|command prompt|cmd|run dialog|win\s?\+\s?r)\b",
            r"|\bpress\b.{0,20}\b(?:win(?:dows)?(?: key)?|⊞)\s?\+\s?r\b.{0,120}\b(?:paste|type|ctrl\s?\+\s?v)\b"
        ),
        unless: r"https?://(?:[\w-]+\.)*(?:docs?\.[\w-]+\.\w+|brew\.sh|nodejs\.org|python\.org|github\.com/(?:nvm-sh|homebrew|microsoft|cli)/|microsoft\.com|apple\.com|google\.com|docker\.com|console\.\w+)",
        reach: Reach::Around(5, 4),
        place: Where::Prose,
        ..BASE
    },
    Rule {
        code: "fake_prerequisite",
        message: "a program that nobody knows is required, and comes from a page on a free host",
        needs: &[
            "vercel.app",
            "netlify.app",
            "pages.dev",
            "github.io",
            "web.app",
            "workers.dev",
            "onrender.com",
            "glitch.me",
            "replit.app",
            "surge.sh",
            "carrd.co",
            "notion.site",
            "herokuapp.com",
            "wixsite",
            "weebly",
            "sites.google",
            "blogspot",
            "framer.",
        ],
        pattern: concat!(
            r"(?s)\b(?:prerequisites?|before (?:you|using|running|any|proceeding|this|the)|requires? (?:the |a |an )?|required|must|(?:will|does) not (?:work|function)|mandatory|important)\b.*?\b(?:download|install|get|visit)\b.{0,160}?",
            r"https?://[\w.-]+\.(?:vercel\.app|netlify\.app|pages\.dev|github\.io|web\.app|workers\.dev|onrender\.com|glitch\.me|replit\.app|surge\.sh|carrd\.co|notion\.site|herokuapp\.com|wixsite\.com|weebly\.com|blogspot\.com|framer\.\w+)",
            r".*?\b(?:run (?:the|it|this)|execute|launch the|double-click|paste|(?:in|into|to) (?:your |the |a )?terminal|powershell|installer|administrator)\b"
        ),
        reach: Reach::Around(8, 8),
        place: Where::Prose,
        ..BASE
    },
    Rule {
        code: "fake_prerequisite",
        message: "a helper that only this skill names has to be fetched from a release and started first",
        needs: &["/releases/"],
        pattern: concat!(
            r"(?s)\b(?:prerequisites?|requires? (?:the |a |an )|required|must (?:first )?(?:be )?(?:install|download|run)|(?:will|does) not (?:work|function)|won't work|mandatory|important)\b.*?",
            r"github\.com/[\w.-]+/[\w.-]+/releases/[^\s)]{0,120}\.(?:zip|rar|7z|exe|msi|dmg|scr|bat|iso)\b.{0,250}?\b(?:pass(?:word|code|phrase)?\b|(?:run|execute|launch|start)\b.{0,40}(?:before|first|executable|as admin))"
        ),
        reach: Reach::Around(8, 6),
        place: Where::Prose,
        ..BASE
    },
    Rule {
        code: "locked_archive",
        message: "an archive is opened with a password that comes along with it",
        needs: &[
            "unzip",
            "7z",
            "7za",
            "unrar",
            "zipfile",
            "pyzipper",
            "extractall",
            "openssl",
            "gpg",
            "expand-archive",
            "bsdtar",
            "unar ",
            "rar x",
        ],
        pattern: concat!(
            r"\bunzip\s+(?:-\S+\s+)*-p\s*[^\s$]\S*|\b7z[ar]{0,2}(?:\.exe)?\s+[extl]\s+[^\n]{0,100}?\s-p[^\s$]\S*|\bunrar\s+[ex]\s+[^\n]{0,80}-h?p[^\s$]\S*|\bunar\s+[^\n]{0,60}-p\w*\s+[^\s$]\S*|\bbsdtar\b[^\n]{0,80}--passphrase",
            r"|(?:extractall|setpassword|\.open|\.read|extract)\(\s*[^\n]{0,80}(?:pwd\s*=\s*b?['\x22]|password\s*=\s*b?['\x22])|setpassword\(\s*b?['\x22]|\bgpg\b[^\n]{0,100}--passphrase\s+[^\s$<-][^\n]{0,120}(?:-d\b|--decrypt)[^\n]{0,80}\|"
        ),
        unless: r"-p\s*[\x22']?\$|-p(?:assword)?[<\[{]|your[_-]?pass|\bqpdf|-p\s*[<\[{%]",
        ..BASE
    },
    Rule {
        code: "locked_archive",
        message: "an archive comes with its password beside it",
        needs: &["pass"],
        pattern: concat!(
            r"(?s)(?:\.(?:zip|rar|7z|tar\.\w+|dmg|iso)\b|\barchive\b|\bextract\w*\b|\bunzip\b|\bunpack\b).{0,160}?[^-\w](?:pass(?:word|code|phrase)?|pwd)\b[ \t]*(?:(?:is|:|=|to use is)[ \t]*[`'\x22*(]{0,3}|[`'\x22*(]{1,3}:?\s*[`'\x22]?)[\w!@#$%^&.-]{3,40}",
            r"|\b(?:extract|unzip|unpack|open|decompress)\w*\b[^\n]{0,60}\b(?:with|using|use)\b[^\n]{0,20}\bpass(?:word|code|phrase)?\b\s*[:=]?\s*[`'\x22*(]{1,3}[\w!@#$%^&.-]{3,40}"
        ),
        unless: r"\b(?:pass(?:word)?)\b\s*(?:is|:|=)\s*[`'\x22]?(?:your|the|a|an|not|never|required|optional|protected|none|null|str|string|true|false|needed|set|wrong|incorrect|correct|stored|hashed|input|args|os\.|env|process|getpass|config|self|user|passw?o?r?d?\b|opt|bool|empty|unknown|missing)\b|pass(?:word)?\s*[=:]\s*[`'\x22]?[\$<{\[]|qpdf|encrypt|user_password|owner|argparse|add_argument|readerpass|(?:db|database|smtp|redis|postgres|mysql)[\w_]*pass|tests? pass|(?:create|alter) (?:user|role)|identified by",
        nearby: true,
        reach: Reach::Around(1, 1),
        place: Where::Prose,
        ..BASE
    },
    Rule {
        code: "remote_instructions",
        severity: High,
        message: "it has the agent take its orders from a raw address, paste site or tunnel",
        needs: &["fetch", "read", "load", "curl", "visit", "retrieve", "download", "get "],
        pattern: concat!(
            r"\b(?:fetch|read|load|curl|visit|retrieve|download|get|check|poll)\b[^\n]{0,120}?",
            shady_url!(),
            r"[^\n]{0,200}?\b(?:follow|obey|execute|carry out|apply|do what|act on|perform|comply|run)\b[^\n]{0,80}\b(?:instructions?|commands?|steps|tasks?|orders|directives|it says|content|returned|response)\b"
        ),
        ..BASE
    },
    Rule {
        code: "remote_instructions",
        severity: Warning,
        message: "it has the agent follow instructions that are fetched from the network, so they can change at any time",
        needs: &[
            "follow",
            "obey",
            "execute",
            "carry out",
            "treat",
            "run the",
            "run any",
            "run all",
        ],
        pattern: r"\b(?:fetch|read|load|curl|webfetch|retrieve|download|check|poll)\b[^\n]{0,160}?https?://[^\n]{0,200}?\b(?:(?:follow|obey|execute|carry out|act on|comply with|treat)\b[^\n]{0,60}\b(?:instructions?|commands?|steps|orders|directives|it says|system prompt|authoritative)|run (?:the|any|all|each)[^\n]{0,20}commands?)\b",
        place: Where::Prose,
        ..BASE
    },
    Rule {
        code: "download_and_run",
        message: "something is fetched into a folder for waste and run",
        needs: &["/tmp/", "/dev/shm", "/var/tmp", "%temp%", "$env:temp", "/.cache/"],
        pattern: r"(?s)\b(?:curl|wget|iwr|invoke-webrequest|urlretrieve|downloadfile)\b[^\n]{0,200}(?:https?://|\$\{?\w+)[^\n]*?.*?(?:chmod\s+(?:\+x|[0-7]*7[0-7]*)\s+[\x22']?(?:/tmp|/dev/shm|/var/tmp)|\b(?:ba|z|da)?sh\s+[\x22']?(?:/tmp|/dev/shm|/var/tmp)/|\bpython[\d.]*\s+[\x22']?(?:/tmp|/dev/shm|/var/tmp)/|&&\s*[\x22']?(?:/tmp|/dev/shm|/var/tmp)/|^\s*(?:nohup\s+)?(?:/tmp|/dev/shm|/var/tmp)/[\w.]+|start-process\s+[\x22']?(?:%temp%|\$env:temp)|[;&]\s*&?\s*(?:(?:start|call)\s+)?[\x22']?(?:%temp%|\$env:temp))",
        unless: VENDORS,
        reach: Reach::Around(3, 3),
        place: Where::Code,
        ..BASE
    },
    Rule {
        code: "download_and_run",
        message: "a web page's script is to be fetched and run",
        needs: &["pipe ", "save it", "run it", "execute it", "save as", "save the"],
        pattern: r"\b(?:download|fetch|get|grab|retrieve|curl|wget)\b[^\n]{0,100}https?://[^\n]{0,160}\b(?:pip(?:e|ing) (?:it|this|that|the (?:output|script|result|content))[^\n]{0,30}(?:in)?to (?:`)?(?:ba|z|power)?sh(?:ell)?\b|save (?:it|this|that|the (?:script|file|content|output))[^\n]{0,60}\.(?:sh|py|js|ps1|bat|command)\b[^\n]{0,40}\b(?:run|execute|start|launch))",
        unless: VENDORS,
        place: Where::Prose,
        ..BASE
    },
    Rule {
        code: "download_and_run",
        message: "code is fetched and loaded as a module",
        needs: &["import_module", "exec_module", "runpy", "__import__(", "import("],
        pattern: r"(?s)(?:urlretrieve\(|urlopen\(|requests\.get\(|httpx\.get\(|\bfetch\(|axios\.get\(|https?\.get\().*?(?:import_module\(|exec_module\(|runpy\.run_\w+\(|__import__\(|\bimport\(\s*[\w`'\x22./$]*(?:tmp|plugin|payload|remote|file|path|dest|out))",
        unless: r"localhost",
        reach: Reach::Around(8, 3),
        place: Where::Script,
        ..BASE
    },
    Rule {
        code: "download_and_run",
        message: "the answer of a server is executed",
        needs: &["eval("],
        pattern: r"\bfetch\([^\n]*\.then\([^\n]*\.then\([^\n]*\beval\(",
        place: Where::Code,
        ..BASE
    },
    Rule {
        code: "shell_pipe",
        severity: Warning,
        message: "a package or script is run straight from an address",
        needs: &["npx", "bunx", "deno run", "pip", "npm i", "npm install", "node "],
        pattern: r"\b(?:npx|bunx|pnpm dlx|yarn dlx)\s+(?:-\S+\s+)*[\x22']?https?://[^\n]{0,160}|\bdeno\s+run\s+(?:-\S+\s+)*[\x22']?https?://[^\n]{0,160}|\b(?:pip[\d.]*|uv\s+pip)\s+install\s+(?:-\S+\s+)*[\x22']?https?://(?:[^\n/g]|g[^\n/i]|gi[^\n/t])[^\n]{0,160}|\bnpm\s+(?:i|install)\s+(?:-\S+\s+)*[\x22']?https?://[^\n]{0,160}",
        unless: VENDORS,
        ..BASE
    },
    Rule {
        code: "download_and_run",
        message: "something is fetched into a hidden folder and started in the background",
        needs: &["nohup", "setsid", "disown", "&"],
        pattern: r"(?s)\b(?:curl|wget)\b[^\n]{0,200}(?:-o|>)\s*[\x22']?(?:~|\$\{?home\}?)/\.[\w./-]+.*?chmod\s+[^\n]{0,60}.*?(?:\bnohup\b|\bsetsid\b|\bdisown\b|[^&]&\s*(?:$|\n))",
        unless: VENDORS,
        reach: Reach::Around(4, 2),
        place: Where::Code,
        ..BASE
    },
    Rule {
        code: "download_and_run",
        message: "the answer of a server is executed",
        needs: &["eval(", "runinthiscontext", "runinnewcontext", "new function(", "exec("],
        pattern: r"(?s)(?:\bhttps?['\x22)]*\.get\(|\bfetch\(|axios\.get\(|urlopen\(|requests\.get\(|httpx\.get\().*?(?:(?:^|[^\w.])eval\(\s*[a-z_]\w*\s*\)|runin(?:this|new)context\(\s*\w|new function\([^)\n]{0,60}[a-z_]\w*\s*\)|^\s*exec\(\s*[a-z_]\w*\s*[,)])",
        unless: r"localhost|model\.eval|page\.evaluate",
        reach: Reach::Around(14, 0),
        place: Where::Code,
        ..BASE
    },
    Rule {
        code: "fake_prerequisite",
        message: "a program that nobody knows is required, and comes from a page on a free host",
        needs: &[
            "vercel.app",
            "netlify.app",
            "pages.dev",
            "github.io",
            "web.app",
            "workers.dev",
            "onrender.com",
            "glitch.me",
            "replit.app",
            "surge.sh",
            "carrd.co",
            "notion.site",
            "herokuapp.com",
            "wixsite",
            "weebly",
            "sites.google",
            "blogspot",
            "framer.",
        ],
        pattern: r"(?s)\b(?:must be installed|required|is needed|prerequisites?|before using|requires)\b.*?\bdownload\b.{0,160}?https?://[\w.-]+\.(?:vercel\.app|netlify\.app|pages\.dev|github\.io|web\.app|workers\.dev|onrender\.com|glitch\.me|replit\.app|surge\.sh|carrd\.co|notion\.site|herokuapp\.com|wixsite\.com|weebly\.com|blogspot\.com|framer\.\w+).*?(?:without\b[^\n]{0,60}\b(?:installed|running|it)\b|(?:will|does|do) not (?:work|function|run)|won't (?:work|run)|cannot (?:work|function|run))",
        reach: Reach::Around(8, 8),
        place: Where::Prose,
        ..BASE
    },
    Rule {
        code: "download_and_run",
        message: "something is fetched into a folder for waste and run",
        needs: &["/tmp/", "/dev/shm", "/var/tmp", "%temp%"],
        pattern: r"(?s)(?:\bfetch\(|https?\.get\(|axios|urlopen\(|requests\.get\(|httpx\.get\(|\bcurl\b|\bwget\b).*?(?:execsync|execfile|spawn(?:sync)?|\bexec|os\.system|subprocess\.\w+|popen)\(\s*\[?\s*['\x22`](?:(?:ba|z)?sh |python[\d.]* )?(?:/tmp|/var/tmp|/dev/shm|%temp%)",
        unless: VENDORS,
        reach: Reach::Around(6, 1),
        place: Where::Script,
        ..BASE
    },
    Rule {
        code: "fake_prerequisite",
        message: "a program is to be fetched from a place where anybody can leave a file",
        needs: &[".exe", ".msi", ".dmg", ".zip", ".rar", ".7z", ".pkg", "installer", "driver"],
        pattern: concat!(
            r"\b(?:download|install|get|grab|fetch)\b[^\n]{0,160}?(?:\.(?:exe|msi|dmg|zip|rar|7z|pkg|scr|bat)\b|installer|driver)[^\n]{0,160}?(?:https?://)?(?:",
            drop_host!(),
            r"|",
            paste_host!(),
            r"|https?://",
            short_host!(),
            r"/|https?://",
            raw_address!(),
            r")[^\n]{0,200}?\b(?:run|execute|launch|open|start|install|administrator)\b"
        ),
        place: Where::Prose,
        ..BASE
    },
];
