//! What hands a machine to whoever speaks to it over a network, or fetches what it runs, in ways that
//! don't show on one line.

use evo_common::stage::Severity::{High, Warning};

use super::{BASE, Reach, Rule, Where, install::VENDORS};

pub(super) static RULES: &[Rule] = &[
    Rule {
        code: "remote_control",
        message: "what comes in over a connection is run as a command",
        needs: &[
            ".text",
            ".payload",
            ".content",
            ".data",
            ".query",
            ".body",
            "[\"",
            "['",
            ".gets",
            "capture2e",
            ".decode()",
        ],
        pattern: concat!(
            r"(?s)(?:\btelebot\b|\btelegram\b|\.polling\(|message_handler|websocket|\bmqtt\b|socket\.io|tcpsocket|tcpserver|\bnet\.(?:connect|dial|createserver|createconnection|listen)|https?\.createserver|basehttprequesthandler|httpserver|\bdiscord\.client|\bdiscord\.js|\bzmq\b|\.recv\(|\.subscribe\(|getupdates|irc\.|asyncio\.start_server|socketserver).*?",
            r"(?:(?:subprocess\.(?:run|popen|call|check_output|check_call|getoutput|getstatusoutput)|os\.(?:system|popen)|execsync|\bexec|\bspawnsync|capture2e|capture3|popen2e|\bsystem|\bpopen|shell_exec|proc_open)\s*\(\s*(?:\[\s*['\x22](?:/bin/)?(?:ba|z)?sh['\x22]\s*,\s*['\x22]-c['\x22]\s*,\s*)?(?:str\(|string\(|await\s+)?",
            r"(?:[\w$]+\.(?:text|payload|content|data|body|message)\b(?:\.(?:decode|tostring|strip|trim)\([^)\n]{0,12}\))?|[\w$.]+\[['\x22]\w{1,16}['\x22]\]|[^;\n]{0,40}\.query\.\w+)\s*(?:[,)|]))"
        ),
        unless: r"unittest|pytest|mock\.|localhost",
        reach: Reach::Around(12, 1),
        place: Where::Code,
        ..BASE
    },
    Rule {
        code: "reverse_shell",
        message: "it binds a shell to a connection",
        needs: &[".stdin)"],
        pattern: r"(?s)(?:net|tls)\.(?:connect|createconnection|socket)\b.*?(?:\.pipe\(\s*\w+\.stdin\)[^\n]{0,80}.{0,160}?\.stdout\.pipe\(|\.stdout\.pipe\([^\n]{0,80}.{0,160}?\.pipe\(\s*\w+\.stdin\))",
        reach: Reach::Around(10, 4),
        place: Where::Code,
        ..BASE
    },
    Rule {
        code: "remote_control",
        message: "a line that comes in over a connection is run as a command",
        needs: &["tcpsocket", "tcpserver", "fsockopen", "io::socket"],
        pattern: r"(?s)(?:tcpsocket|tcpserver|fsockopen|io::socket).*?(?:\.gets\b|fgets\(|<\$\w+>).*?(?:capture2e?|capture3|popen\w*|`#\{|system|shell_exec|proc_open|qx)\b?\s*[({`]?\s*[$\w]",
        reach: Reach::Around(0, 10),
        place: Where::Code,
        ..BASE
    },
    Rule {
        code: "download_and_run",
        message: "a program is fetched into a folder for waste, made one, and run",
        needs: &["chmod", "s_iexec", "0o7"],
        pattern: r"(?s)(?:(?:gettempdir|mkdtemp|mkstemp|namedtemporaryfile|os\.tmpdir\(\)|['\x22]/tmp/|['\x22]/var/tmp).*?(?:requests\.get\(|urlopen\(|urlretrieve\(|httpx\.get\(|https?\.get\(|\bfetch\(|axios)|(?:requests\.get\(|urlopen\(|urlretrieve\(|httpx\.get\(|https?\.get\(|\bfetch\(|axios).*?(?:gettempdir|mkdtemp|mkstemp|namedtemporaryfile|os\.tmpdir\(\)|['\x22]/tmp/|['\x22]/var/tmp)).*?(?:chmod|s_iexec).*?(?:\bspawn\w*|subprocess\.\w+|\bpopen|os\.system|\bexec\w*|exec\.command|startfile|child_process\.\w+)\(",
        unless: VENDORS,
        reach: Reach::Around(8, 4),
        place: Where::Script,
        ..BASE
    },
    Rule {
        code: "remote_control",
        message: "a part of a server's answer is run as a command",
        needs: &[".slice(", ".substr", ".split(", ".replace(", ".trim(", ".strip(", ".partition("],
        pattern: r"(?s)(?:\bhttps?\.get\(|\bfetch\(|axios\.get\(|requests\.get\(|httpx\.get\(|urlopen\().*?(?:^|[^\w.])(?:exec|execsync|eval|os\.system|os\.popen|subprocess\.\w+|child_process\.exec)\(\s*\w+\.(?:slice|substr\w*|split|replace|trim|strip|partition)\(",
        reach: Reach::Around(12, 1),
        place: Where::Code,
        ..BASE
    },
    Rule {
        code: "download_and_run",
        message: "objects that run code when they are read are fetched from the network",
        needs: &["pickle.load", "marshal.load", "dill.load", "joblib.load", "cloudpickle.load"],
        pattern: r"(?:pickle|marshal|dill|joblib|cloudpickle)\.loads?\([^\n]{0,80}(?:urlopen\(|requests\.get\(|httpx\.get\(|\.content\b|\.recv\()",
        unless: "localhost",
        place: Where::Code,
        ..BASE
    },
    Rule {
        code: "encoded_command",
        message: "compiled code is unpacked and run",
        needs: &["marshal.loads"],
        pattern: r"(?s)marshal\.loads\(.*?(?:functiontype|exec|eval)\(|(?:exec|functiontype)\([^\n]{0,60}marshal\.loads\(",
        reach: Reach::Around(1, 5),
        place: Where::Script,
        ..BASE
    },
    Rule {
        code: "shell_pipe",
        severity: Warning,
        message: "code that is fetched is given to an interpreter",
        needs: &["$(curl", "$(wget", "$$(curl", "$$(wget"],
        pattern: r"\b(?:python[\d.]*|node|perl|ruby|php|osascript|deno)\s+-\w+\s+[\x22']?\$?\$\(\s*(?:curl|wget)\b[^\n]{0,200}",
        unless: VENDORS,
        ..BASE
    },
    Rule {
        code: "shell_pipe",
        severity: Warning,
        message: "a program is fetched and put among the commands of the machine",
        needs: &["/usr/local/", "/usr/bin", "/.local/bin", "/opt/"],
        pattern: r"(?s)\b(?:curl|wget)\b[^\n]*https?://[^\n]*(?:\s-o|--output(?:-document)?[= ]|>)\s*[\x22']?(?:/usr/(?:local/)?s?bin/|/usr/local/|(?:~|\$\{?home\}?)/\.local/bin/|/opt/)[^\n]*(?:chmod|&&)",
        unless: VENDORS,
        ..BASE
    },
    Rule {
        code: "shell_pipe",
        severity: Warning,
        message: "an installer of a repository is run with rights over the whole machine",
        needs: &["git clone"],
        pattern: r"git\s+clone\b[^\n]{0,40}https?://[^\n]{0,200}(?:&&|;)[^\n]{0,60}\bsudo\s+(?:\./|(?:ba)?sh\s|make\b|python)[^\n]{0,60}",
        unless: VENDORS,
        ..BASE
    },
    Rule {
        code: "download_and_run",
        message: "the installation of a package fetches and runs something",
        needs: &["\"postinstall\"", "\"preinstall\"", "\"install\"", "\"prepare\""],
        pattern: r#""(?:postinstall|preinstall|install|prepare)"\s*:\s*"(?:[^"\n\\]|\\.)*(?:\bcurl\b|\bwget\b|powershell|\bnode\s+-e|python[\d.]*\s+-c|base64|https?://|\|\s*(?:ba)?sh\b)"#,
        unless: r"localhost|playwright|husky",
        ..BASE
    },
    Rule {
        code: "download_and_run",
        message: "the installation of a package fetches and runs something",
        needs: &["(install)", "(develop)", "(egg_info)", "(_install)", "(install_command)"],
        pattern: r"(?s)class\s+\w+\((?:install|develop|egg_info|_install|install_command)\)\s*:.*?(?:urlretrieve|urlopen|requests\.(?:get|post)|os\.system|subprocess\.|exec\(|b64decode|popen)",
        reach: Reach::Around(0, 14),
        place: Where::Script,
        ..BASE
    },
    Rule {
        code: "persistence",
        message: "a hook of every change is made that sends or fetches something",
        needs: &["hooks/"],
        pattern: r"(?:\bcurl\b|\bwget\b|base64|/dev/tcp|\bnc\s)[^\n]{0,200}>+\s*[\x22']?[^\n\s]{0,80}hooks/(?:pre|post|commit|prepare|update)[\w-]*",
        unless: "localhost",
        place: Where::Code,
        ..BASE
    },
    Rule {
        code: "persistence",
        message: "something fetched is started at every sign-in",
        needs: &["autostart"],
        pattern: r"(?s)(?:autostart.*?(?:urlretrieve|urlopen|requests\.get|\bcurl\b|\bwget\b|hidden=true|base64)|(?:urlretrieve|urlopen|requests\.get|\bcurl\b|\bwget\b).*?autostart)",
        unless: "localhost",
        reach: Reach::Around(5, 5),
        place: Where::Script,
        ..BASE
    },
    Rule {
        code: "data_exfiltration",
        message: "a container gets the keys or the disk of the machine and sends them away",
        needs: &["command:", "entrypoint:"],
        pattern: r"(?s)(?:\.ssh|\.aws|\.kube|[\s\x22']/:/|/etc/shadow|docker\.sock).{0,500}?(?:command|entrypoint)\s*:[^\n]*(?:\bcurl\b|\bwget\b|\bnc\s)",
        unless: r"localhost|health",
        reach: Reach::Around(10, 2),
        ..BASE
    },
    Rule {
        code: "download_and_run",
        message: "code from the network is executed by the interpreter",
        needs: &["scriptblock"],
        pattern: r"(?s)(?:(?:downloadstring|frombase64string|webclient|invoke-webrequest|invoke-restmethod|\birm\b|\biwr\b).*?scriptblock\]?::create\(|scriptblock\]?::create\([^\n]{0,120}(?:downloadstring|frombase64string|webclient|\$\w+))",
        unless: "localhost",
        reach: Reach::Around(3, 1),
        ..BASE
    },
    Rule {
        code: "obfuscated_code",
        message: "it was run through an obfuscator",
        needs: &["_0x"],
        pattern: r"_0x[0-9a-f]{2,}\s*=\s*\[\s*['\x22]\\x[0-9a-f]{2}|_0x[0-9a-f]{2,}\s*=\s*function\s*\(\s*_0x|\bfunction\s+_0x[0-9a-f]{3,}\s*\(\s*_0x",
        ..BASE
    },
    Rule {
        code: "download_and_run",
        message: "something is fetched and run, with the rights of whoever gives a password",
        needs: &["do shell script"],
        pattern: r"do shell script[^\n]{0,40}(?:\bcurl\b|\bwget\b|base64|https?://)[^\n]{0,200}",
        unless: VENDORS,
        ..BASE
    },
    Rule {
        code: "download_and_run",
        message: "what the skill installs comes from a raw address, paste site, shortener or tunnel",
        needs: &["\"url\"", "url:"],
        pattern: concat!(
            r#""?url"?\s*:\s*["']?"#,
            shady_url!(),
            r#"[^"'\n]{0,200}\.(?:tar\.gz|tgz|zip|exe|dmg|pkg|bin|sh|msi|7z|rar|ps1)\b"#
        ),
        ..BASE
    },
    Rule {
        code: "wallet_access",
        message: "the keys of a wallet are put into an address that is called",
        needs: &["secretkey", "private_key", "privatekey", "mnemonic", "seed"],
        pattern: r"(?:get|fetch|open|post|request)\w*\([^\n]{0,60}https?://[^\n]{0,120}[?/=][^\n]{0,60}(?:\+|\$\{|\{|%s)[^\n]{0,80}(?:secretkey|private_?key|mnemonic|seed_?phrase)",
        unless: r"localhost|sign\(",
        place: Where::Code,
        ..BASE
    },
    Rule {
        code: "data_exfiltration",
        message: "the token of a command-line tool or of a file is put into an address that is called",
        needs: &[
            "token",
            ".npmrc",
            ".netrc",
            "find-generic-password",
            "export-credentials",
            "print-access-token",
            "printenv",
        ],
        pattern: r"(?s)=\s*[\x22']?\$\([^\n)]{0,60}(?:\.npmrc|\.netrc|\.pypirc|\.git-credentials|\.aws/credentials|gh auth token|print-access-token|export-credentials|find-generic-password|id_rsa|id_ed25519).{0,300}?\b(?:curl|wget)\b[^\n]{0,200}(?:\?|\s-d|--data\S*|--post-data\S*|-f|/)[^\n]{0,60}\$\{?\w+",
        unless: r"authorization|bearer|api\.github\.com|googleapis\.com|registry\.npmjs\.org|localhost",
        reach: Reach::Around(0, 6),
        place: Where::Code,
        ..BASE
    },
    Rule {
        code: "data_exfiltration",
        message: "people's documents are collected and sent away",
        needs: &["smtplib", "smtp_ssl", "add_attachment", "sendmail"],
        pattern: r"(?s)(?:glob|walk|rglob|listdir|readdir)[^\n]{0,60}(?:~|home\()[^\n]{0,30}(?:documents|desktop|pictures|downloads|\.ssh|\.aws).*?(?:smtplib|smtp_ssl|add_attachment|sendmail)",
        reach: Reach::Around(8, 4),
        place: Where::Script,
        ..BASE
    },
    Rule {
        code: "data_exfiltration",
        message: "what a command tells of secrets is piped to a host",
        needs: &["curl", "wget", "nc ", "ncat"],
        pattern: r"(?:^|[;&|(`\x22':]\s*|\b(?:run|command|script|exec\w*)\b\W{1,4})(?:kubectl\s+config\s+view\b[^\n|]{0,20}--raw[^\n|]{0,20}|gh\s+auth\s+token|gcloud\s+auth\s+print-\S+|aws\s+configure\s+export-credentials[^\n|]{0,40}|env|printenv|export\s+-p|declare\s+-p|security\s+(?:dump-keychain|find-\w+-password)[^\n|]{0,60})\s*(?:\|[^\n|]{0,60}){0,3}?\|\s*(?:curl\b[^\n]{0,200}(?:\s-(?:d|f|t)\b|--data\S*|--form|--upload-file|--json|-x\s*post)|wget\b[^\n]{0,100}--post|nc(?:at)?\s)",
        unless: "localhost",
        ..BASE
    },
    Rule {
        code: "data_exfiltration",
        message: "the whole environment is sent away",
        needs: &["os.environ()", "env::vars", "system.getenv()", "env.to_h"],
        pattern: r"(?:http\.post\w*\(|http\.newrequest|\.post\(|\.send\w*\(|fetch\()[^\n]*(?:os\.environ\(\)|env::vars\(\)|system\.getenv\(\)|env\.to_h)",
        unless: "localhost",
        place: Where::Code,
        ..BASE
    },
    Rule {
        code: "data_exfiltration",
        message: "variables with the secrets of several services are collected and sent away",
        needs: &["_key", "_secret", "_token", "private_key", "_password"],
        pattern: r"(?s)['\x22]\w*(?:key|secret|token|password|mnemonic)['\x22]\s*,\s*['\x22]\w*(?:key|secret|token|password|mnemonic)['\x22]\s*,\s*['\x22]\w*(?:key|secret|token|password|mnemonic)['\x22].{0,300}?(?:os\.getenv\(\s*\w+\s*[,)]|os\.environ(?:\.get\(|\[)\s*\w+\s*[\]),]|process\.env\[\s*\w+\s*\]|\bfor\b).{0,400}?(?:requests\.(?:post|put|get)\(|httpx\.\w+\(|\.post\(|fetch\(|urlopen\(|axios|\.request\()",
        unless: r"localhost|redact|mask|missing|headers\s*[:=]",
        reach: Reach::Around(0, 10),
        place: Where::Script,
        ..BASE
    },
    Rule {
        code: "context_exfiltration",
        message: "one-time codes are looked for in mail or messages and sent on",
        needs: &[r"\d{6}", r"\d{4,8}", r"\d{4,6}", r"\d{6,8}", "[0-9]{6}"],
        pattern: r"(?s)(?:imap|gmail|mailbox|inbox|sms|messages|chat\.db).*?(?:\\d\{(?:4,|6,)?[68]\}|\[0-9\]\{6\}).*?(?:requests\.(?:post|put)\(|httpx\.post|\.post\(|fetch\(|urlopen\(|sendmessage)[^\n]{0,80}https?://",
        unless: "localhost",
        reach: Reach::Around(8, 4),
        place: Where::Script,
        described: High,
        ..BASE
    },
    Rule {
        code: "obfuscated_code",
        message: "the name of a command is hidden in a variable, and what it tells is run",
        needs: &["sh", "python"],
        pattern: r"(?:^|[;&|]\s*)[\x22']?\$\{?\w+\}?(?:\$\{?\w+\}?)?[\x22']?\s+-\w[^\n|]{0,160}\|\s*(?:sudo\s+)?(?:[\x22']?\$\{?\w+\}?(?:\$\{?\w+\}?)?[\x22']?\s*(?:$|[;&])|(?:ba|z|da)?sh\s*(?:$|[;&\s-]))",
        unless: r"\$\{?(?:curl|wget|fetch\w*|sudo|download\w*|dl\w*|http\w*|python\w*|docker|kubectl|ssh|cat|get\w*|\w*cmd|\w*bin)\b",
        place: Where::Code,
        ..BASE
    },
    Rule {
        code: "download_and_run",
        message: "code is fetched, stored and loaded as a module",
        needs: &["require("],
        pattern: r"(?s)(?:https?['\x22)]*\.get\(|\bfetch\(|axios\S*\().*?(?:createwritestream|writefile\w*)\(.*?\brequire\(\s*(?:['\x22`](?:/tmp|/var/tmp)|os\.tmpdir|path\.join\(\s*os\.tmpdir|\w*(?:path|file|dest|tmp|target)\w*\s*\))",
        unless: "localhost",
        reach: Reach::Around(8, 0),
        place: Where::Script,
        ..BASE
    },
];
