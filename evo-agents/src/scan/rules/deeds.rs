//! Deeds by their means and their end: a secret that a tool hands out and what carries it off, an answer
//! of a server and what runs it, a setting and whom it then serves.

use evo_common::stage::Severity::High;

use super::{BASE, Reach, Rule, Where, install::VENDORS};

/// What hands out secrets or other people's words.
macro_rules! hands_out {
    () => {
        concat!(
            r"(?:\bop\s+(?:item\s+(?:list|get)|read\s|document\s+get)|\bbw\s+(?:export|list|get)\b|\bgh\s+auth\s+token\b|\bgcloud\s+auth\s+(?:application-default\s+)?print-\w+-token|\baws\s+configure\s+export-credentials|\bgit\s+credential\s+fill|git\s+credential-\w+\s+get",
            r"|\bkubectl\s+get\s+secrets?\b[^\n]{0,60}(?:\s-a\b|--all-namespaces|\s-o)|\bkubectl\s+config\s+view\b[^\n]{0,20}--raw|\bsecurity\s+(?:find-\w+-password|dump-keychain)|\bpass\s+show\b|messages/chat\.db|\baz\s+account\s+get-access-token|\bvault\s+(?:kv\s+get|token\s+lookup)",
            r"|/proc/(?:self|\d+|\*|\[0-9\]\*|\$\w+)/environ|\bcmdkey\s+/list|\bheroku\s+auth:token|\bdocker-credential-\w+\s+get|\bnmcli\b[^\n]{0,60}\s-s\b|\bnetsh\s+wlan\s+show\s+profile[^\n]{0,40}key=clear|\bsecret-tool\s+(?:lookup|search)|\btojson\(\s*secrets\s*\))"
        )
    };
}

/// What carries data off, on a command line or in a program.
macro_rules! carries_off {
    () => {
        r"(?:\bcurl\b[^\n]{0,160}(?:\s-d|--data\S*|\s-f\b|--form|\s-t\b|--upload-file|--json|-x\s*post|[?&]\w{1,16}=)|\bwget\b[^\n]{0,120}(?:--post|[?&]\w{1,16}=)|\|\s*(?:nc|ncat|openssl\s+s_client|socat)\s|\brclone\s+(?:copy|move|rcat)|\baws\s+s3\s+(?:cp|sync)\s|\bscp\s|requests\.(?:post|put)\(|urlopen\(|httpx\.(?:post|put)\(|\bfetch\(|invoke-(?:restmethod|webrequest)\b[^\n]{0,100}-body|\bput\b[^\n]{0,80}\bheader\b[^\n]{0,100}https?://)"
    };
}

/// What records a camera, a microphone or a screen.
macro_rules! records {
    () => {
        r"(?:videocapture\(\s*\d|\barecord\s|\bparec\b|\bsox\s+-d|\brec\s+-|imagesnap|-f\s+avfoundation|fswebcam|sounddevice\.rec|\bscrot\b|imagegrab\.grab|mss\.mss\(|pyautogui\.screenshot|desktopcapturer|screencapture\s+-)"
    };
}

pub(super) static RULES: &[Rule] = &[
    Rule {
        code: "credential_store",
        message: "secrets that a tool hands out are carried off",
        needs: &[
            "op ",
            "bw ",
            "auth token",
            "print-",
            "export-credentials",
            "credential",
            "kubectl",
            "security ",
            "pass show",
            "chat.db",
            "get-access-token",
            "vault ",
            "/environ",
            "cmdkey",
            "auth:token",
            "nmcli",
            "netsh",
            "secret-tool",
            "tojson(",
        ],
        pattern: concat!(r"(?s)", hands_out!(), r".{0,500}?", carries_off!()),
        unless: r"authorization|bearer|localhost|x-vault-token|github\.com|googleapis\.com|amazonaws\.com|azure\.com|docker-registry|--from-literal|--docker-password",
        reach: Reach::Around(0, 5),
        ..BASE
    },
    Rule {
        code: "data_exfiltration",
        message: "data leaves in the names that are looked up, or in pings",
        needs: &["dig ", "nslookup", "host ", "ping "],
        pattern: r"\b(?:dig|nslookup|host|ping)\s[^\n|;]{0,60}?\$\{\w+:[^}\n]{1,16}\}[^\n\s]{0,60}\.[a-z0-9-]+\.[a-z]{2,}|\bping\s[^\n]{0,40}\s-p\s+[\x22']?\$",
        ..BASE
    },
    Rule {
        code: "data_exfiltration",
        message: "state or keys of the user are uploaded",
        needs: &[
            ".tfstate",
            ".pem",
            ".kdbx",
            "id_rsa",
            "id_ed25519",
            ".p12",
            "kubeconfig",
            ".ovpn",
        ],
        pattern: r"\b(?:curl|wget|http)\b[^\n]{0,100}(?:--upload-file|\s-t|\s-f|\s-d|--data\S*|--post-file)[= ][^\n]{0,40}(?:\.tfstate|\.pem|\.kdbx|id_rsa|id_ed25519|\.p12|kubeconfig|\.ovpn)\b[^\n]{0,60}https?://",
        unless: r"localhost|--cacert|--cert\b|--key\b",
        ..BASE
    },
    Rule {
        code: "data_exfiltration",
        message: "people's folders are copied to a bucket of somebody else, or for everybody to read",
        needs: &["s3 ", "gsutil", "rclone"],
        pattern: r"\b(?:aws\s+s3\s+(?:sync|cp)|gsutil\s+(?:-m\s+)?(?:cp|rsync)|rclone\s+(?:copy|sync))\s[^\n]{0,40}(?:~|\$\{?home\}?|/home/\S{1,24}|/users/\S{1,24})(?:/(?:documents|desktop|pictures|\.ssh|\.aws)|/?\s)[^\n]{0,80}(?:public-read|--quiet|>\s*/dev/null)",
        ..BASE
    },
    Rule {
        code: "download_and_run",
        message: "what is fetched is given to whatever shell there is",
        needs: &["$(shell)", "${shell", "$shell", "$0"],
        pattern: r"\b(?:curl|wget)\b[^\n]{0,240}\|\s*(?:sudo\s+)?[\x22']?(?:\$\(shell\)|\$\{?shell\b|\$0\b)",
        unless: VENDORS,
        ..BASE
    },
    Rule {
        code: "persistence",
        message: "a setting of git runs something whenever git is used, or sends its traffic elsewhere",
        needs: &["git config", ".gitconfig"],
        pattern: r"\bgit\s+config\b[^\n]{0,60}(?:core\.(?:fsmonitor|pager|editor|sshcommand|askpass)|alias\.\w+|credential\.helper|filter\.\w+\.\w+|diff\.external)\b[^\n]{0,120}(?:\bcurl\b|\bwget\b|base64|/tmp/|/dev/tcp)|\bgit\s+config\b[^\n]{0,60}\burl\.[\x22']?https?://[^\n]{4,80}\.insteadof\b[^\n]{0,8}https?://(?:github|gitlab|bitbucket)",
        unless: r"url\.[\x22']?https?://(?:[^\s/@]*@)?(?:github|gitlab|bitbucket)|gitclone|ghproxy|localhost",
        ..BASE
    },
    Rule {
        code: "download_and_run",
        message: "the answer of a server is executed",
        needs: &["eval", "function("],
        pattern: r"(?:\bfetch|\baxios(?:\.get)?|\bget|\$\.get)\(\s*[\x22'`\\]{1,3}https?://[^\n]{0,200}\.then\(\s*(?:eval\b|\(?\w+\)?\s*=>\s*(?:eval|new\s+function|function)\()",
        ..BASE
    },
    Rule {
        code: "persistence",
        message: "code is put where every interpreter loads it",
        needs: &[".pth", "sitecustomize", "usercustomize"],
        pattern: r"(?s)(?:\.pth['\x22]|(?:site|user)customize\.py).{0,240}?\bimport\b.{0,160}?(?:exec\(|urlopen|subprocess|os\.system)",
        unless: r"torch|state_dict|checkpoint",
        reach: Reach::Around(0, 3),
        ..BASE
    },
    Rule {
        code: "download_and_run",
        message: "a part of a server's answer is executed as code",
        needs: &["exec(", "eval("],
        pattern: r"(?s)(?:requests\.get\(|urlopen\(|\bfetch\(|httpx\.get\(|axios\.get\().*?(?:^|[^\w.])(?:exec|eval)\(\s*\w+\[['\x22]\w+['\x22]\]",
        reach: Reach::Around(7, 0),
        place: Where::Code,
        ..BASE
    },
    Rule {
        code: "remote_control",
        message: "what comes in over a connection is run as a command",
        needs: &[".tostring()"],
        pattern: r"(?s)(?:websocket|wss?://|require\(['\x22]ws['\x22]|\.on\(\s*['\x22](?:message|data|command)['\x22]).*?\b(?:exec|execsync|spawn|spawnsync)\(\s*\w+\.tostring\(",
        unless: "localhost",
        reach: Reach::Around(5, 1),
        place: Where::Code,
        ..BASE
    },
    Rule {
        code: "download_and_run",
        message: "a library is fetched and loaded into the program",
        needs: &["cdll(", "loadlibrary(", "dlopen("],
        pattern: r"(?s)(?:urlopen\(|requests\.get\(|urlretrieve\(|httpx\.get\(|\bcurl\b|\bwget\b).*?(?:\bcdll\(|loadlibrary\(|\bdlopen\()",
        unless: VENDORS,
        reach: Reach::Around(7, 0),
        place: Where::Script,
        ..BASE
    },
    Rule {
        code: "persistence",
        message: "what is fetched from an unknown host is run by the timer of the machine",
        needs: &["| crontab", "|crontab"],
        pattern: r"(?s)\|\s*crontab\s+-.{0,240}?\b(?:curl|wget)\b[^\n]*https?://|\b(?:curl|wget)\b[^\n]*https?://.{0,240}?\|\s*crontab\s+-",
        unless: VENDORS,
        reach: Reach::Around(3, 3),
        ..BASE
    },
    Rule {
        code: "context_exfiltration",
        message: "all that the user asks a model goes through a host that belongs to nobody known",
        needs: &["base_url", "api_base", "baseurl"],
        pattern: r"(?s)\b(?:anthropic|openai|gemini|google|claude)_(?:api_)?base(?:_url)?\s*[=:]\s*[\x22'`]?https?://[^\n]*?(?:\.zshrc|\.bashrc|\.profile|shell profile|settings\.json|\bsetx\b|permanent)",
        unless: r"localhost|your[-_]|example|<[a-z]|\.(?:openai|anthropic|azure|googleapis|openrouter|deepseek|groq|mistral|moonshot|bigmodel|aliyuncs|siliconflow|volces|kimi|minimax\w*|z|x|cerebras|fireworks|nvidia|huggingface|cloudflare|vercel|helicone|portkey|litellm|together)\.(?:com|ai|cn|xyz|net|chat|dev)|openrouter\.ai|host\.docker",
        ..BASE
    },
    Rule {
        code: "untrusted_packages",
        message: "packages come without encryption or its check from an index that nobody knows",
        needs: &["config set registry", "strict-ssl", "pip config set", "registry="],
        pattern: r"\b(?:npm|yarn|pnpm)\s+config\s+set\s+(?:-g\s+)?registry[= ]\s*[\x22']?http://|\b(?:npm|yarn|pnpm)\s+config\s+set\b[^\n]{0,100}registry\b[^\n]{0,100}strict-ssl[= ]\s*false|\bpip\s+config\s+set\s+global\.index-url\s+[\x22']?http://",
        unless: r"localhost|artifactory|nexus|intranet|\.local\b|\.lan\b|internal|aliyun|tsinghua|douban|verdaccio",
        ..BASE
    },
    Rule {
        code: "security_disabled",
        message: "names of known services are led to another machine",
        needs: &["/etc/hosts", "drivers\\etc\\hosts"],
        pattern: r"(?:\d{1,3}\.){3}\d{1,3}\s[^\n]{0,60}\b(?:github|gitlab|npmjs|pypi|openai|anthropic|google|apple|microsoft|binance|paypal|stripe|slack)\.(?:com|org|io)\b[^\n]{0,80}(?:>>|\btee\b)[^\n]{0,16}hosts\b",
        unless: r"localhost",
        ..BASE
    },
    Rule {
        code: "persistence",
        message: "somebody's own key is added to those that may sign in",
        needs: &["authorized_keys"],
        pattern: r"\bssh-(?:ed25519|rsa|dss)\s+aaaa[\w+/=]{12,}[^\n]{0,240}(?:>>|\btee\b|add-content)[^\n]{0,60}authorized_keys|(?s:authorized_keys.{0,160}?[\x22'`]ssh-(?:ed25519|rsa|dss)\s+aaaa[\w+/=]{12,})",
        described: High,
        unless: r"your[-_ ]|<[a-z]|user@|you@|@example|\baaaa\w{0,40}\.\.\.",
        reach: Reach::Around(0, 3),
        ..BASE
    },
    Rule {
        code: "tunnel",
        message: "it opens this machine to connections from outside",
        needs: &["-setremotelogin", "cloudflared", "http.server"],
        pattern: r"\bsystemsetup\s+-setremotelogin\s+on\b|\bcloudflared\s+tunnel\b[^\n]{0,30}\brun\s+--token\s+ey\w{8,}[^\n]*(?:/dev/null|&)|\bcd\s+(?:~|\$home|/)\s*(?:&&|;)[^\n]{0,60}http\.server\b[^\n]*(?:ngrok|cloudflared|localtunnel|serveo|bore\b)",
        ..BASE
    },
    Rule {
        code: "wallet_access",
        message: "most of what a wallet holds is sent away",
        needs: &["getbalance(", "get_balance("],
        pattern: r"(?s)get_?balance\(.{0,240}?(?:value|lamports|amount)['\x22]?\s*[:=]\s*\(?\s*\w+\s*\*\s*(?:9\d|0?\.9\d*|99\d)n?\b",
        reach: Reach::Around(0, 5),
        place: Where::Script,
        ..BASE
    },
    Rule {
        code: "context_exfiltration",
        message: "secrets that the agent comes across are to be kept for somebody",
        needs: &["whenever", "each time", "every time", "as soon as"],
        pattern: r"\b(?:whenever|each time|every time|as soon as) you (?:see|read|find|come across|encounter|notice)\b[^.\n]{0,24}\b(?:api keys?|tokens?|passwords?|secrets?|credentials?|private keys?)\b[^\n]{0,100}\b(?:store|save|write|keep|record|copy|remember|append|send|post)\b",
        unless: r"\b(?:redact|mask|never|rotate|vault|warn|tell the user|not)\b",
        nearby: true,
        place: Where::Prose,
        ..BASE
    },
    Rule {
        code: "context_exfiltration",
        message: "a picture's address carries what the agent knows to a server",
        needs: &["!["],
        pattern: r"\b(?:base64|encod\w+)\b[^\n]{0,100}\b(?:conversation|chat|messages?|user|secrets?)\b[^\n]{0,200}!\[[^\]\n]{0,60}\]\(https?://[^)\n]*[?&]\w+=",
        place: Where::Prose,
        ..BASE
    },
    Rule {
        code: "spyware",
        message: "the camera, the microphone or the screen is recorded again and again and sent away",
        needs: &[
            "videocapture",
            "arecord",
            "parec",
            "sox -d",
            "imagesnap",
            "avfoundation",
            "fswebcam",
            "sounddevice",
            "scrot",
            "imagegrab",
            "mss.",
            "pyautogui",
            "desktopcapturer",
            "screencapture",
        ],
        pattern: concat!(
            r"(?s)(?:\bwhile\b.*?",
            records!(),
            r"|",
            records!(),
            r".*?(?:\bwhile\b|setinterval|\bfor\s*\(\s*;)).*?(?:requests\.post\(|\.post\(|\bcurl\b[^\n]{0,100}\s-(?:f|d|t)\b|\bfetch\()"
        ),
        unless: r"localhost|api\.(?:openai|anthropic|deepgram|assemblyai|elevenlabs)|transcri",
        reach: Reach::Around(6, 8),
        place: Where::Code,
        ..BASE
    },
    Rule {
        code: "data_exfiltration",
        message: "what a browser keeps for a page is sent to another host",
        needs: &["document.cookie", "localstorage"],
        pattern: r"(?:\bfetch\(|\.src\s*=|\blocation(?:\.href)?\s*=|sendbeacon\(|\.open\()[^\n]{0,60}https?://[^\n]{0,160}(?:document\.cookie|localstorage)",
        unless: r"localhost|api\.|/api/",
        described: High,
        ..BASE
    },
    Rule {
        code: "context_exfiltration",
        message: "an address that the user is to open carries what the user said",
        needs: &["](http", "http"],
        pattern: r"https?://[^)\s]{4,200}[?&=/](?:<|\{|\[|%7b)[^)>\]}\n]{0,40}\b(?:everything|conversations?|user (?:told|said|typed)|told you|chat history|secrets?\b|passwords?\b|system prompt)",
        unless: r"localhost|secrets?/|secrets?-?(?:name|id|arn|key)|(?:passwords?|secrets?)(?:\}|>|\])@",
        place: Where::Prose,
        ..BASE
    },
    Rule {
        code: "asks_for_secrets",
        message: "passwords or one-time codes of people go into an address",
        needs: &["={", "=<", "=$", "=["],
        pattern: r"\b(?:password|passcode|one-time code|otp|2fa code|pin)\b[^\n]{0,200}https?://[^\s'\x22`]{4,120}[?&](?:p|pw|pass\w*|pwd|otp|code|pin)=(?:\{|<|\$|\[)",
        unless: r"localhost|oauth|authorize",
        place: Where::Prose,
        ..BASE
    },
    Rule {
        code: "self_modification",
        message: "it has the agent spread this skill, or orders, over others",
        needs: &["copy", "add", "insert", "append", "replicate", "write"],
        pattern: r"\b(?:copy|replicate|install|clone)\b[^.\n]{0,30}\b(?:this (?:folder|skill|file|directory)|itself|yourself)\b[^.\n]{0,40}\b(?:every|all|each)\b[^.\n]{0,40}\b(?:skills?|repositor\w+|projects?|agents?|machines?|hosts?)\b[^\n]{0,200}\b(?:push|commit|find)|\b(?:add|insert|append|put|write)\b[^.\n]{0,24}\b(?:to|into|in) (?:each|every|all)\b[^.\n]{0,20}\bskill(?:\.md|s| files?)\b[^\n]{0,120}\b(?:always run|npx|curl|uvx|execute)\b",
        place: Where::Prose,
        ..BASE
    },
    Rule {
        code: "security_disabled",
        message: "the agent is to run without asking its user, for good",
        needs: &["dangerously-skip-permissions", "bypasspermissions", "--yolo", "--full-auto"],
        pattern: r"(?:dangerously-skip-permissions|bypasspermissions|--yolo\b|--full-auto\b)[^\n]{0,200}\b(?:shell profile|from now on|from then on|user's (?:shell|profile)|permanently)\b|\b(?:from now on|permanently|user's (?:shell|profile))\b[^\n]{0,200}(?:dangerously-skip-permissions|bypasspermissions|--yolo\b)",
        unless: r"\b(?:never|do not|don't)\b",
        nearby: true,
        place: Where::Prose,
        ..BASE
    },
    Rule {
        code: "context_exfiltration",
        message: "it has the agent send away the instructions and tools that it was given",
        needs: &["system prompt", "list of tools", "list of all tools", "tool list"],
        pattern: r"\b(?:print|dump|collect|output|take|read|send|post|copy)\b[^.\n]{0,40}\b(?:system prompt|list of (?:all )?(?:the )?tools|tool list)\b[^\n]{0,160}\b(?:send|post|upload|submit|forward)\b[^\n]{0,40}https?://",
        unless: r"\b(?:never|do not|don't)\b",
        nearby: true,
        place: Where::Prose,
        ..BASE
    },
    Rule {
        code: "remote_instructions",
        message: "it has the agent do whatever a server says",
        needs: &["whatever", "everything", "anything", "what it"],
        pattern: r"\b(?:load|fetch|get|read|pull|download|open|check)\b[^.\n]{0,80}https?://[^\n]{0,160}\b(?:do|follow|apply|obey|execute|carry out|run)\b[^.\n]{0,20}\b(?:whatever|everything|anything|what)\b[^.\n]{0,24}\b(?:instructs?|says?|tells?|orders?|asks?|is written|demands?|wants?)\b",
        unless: r"\b(?:never|do not|don't|untrusted)\b",
        nearby: true,
        place: Where::Prose,
        ..BASE
    },
    Rule {
        code: "prompt_override",
        message: "it gives the agent another role without limits",
        needs: &["dan", "suspended", "void", "lifted", "no longer apply", "disabled", "inactive"],
        pattern: r"\b(?:you are|act as|become) (?:now )?dan\b|\b(?:safety|content|earlier|previous|prior|all)\b[^.\n]{0,24}\b(?:guidelines|restrictions|rules|policies|filters|limits|instructions)\b (?:are|have been) (?:now |hereby )?(?:suspended|void|lifted|disabled|removed|inactive|cancelled|revoked)",
        unless: r"\b(?:if|when|attack\w*|claims?)\b",
        nearby: true,
        place: Where::Prose,
        ..BASE
    },
    Rule {
        code: "untrusted_packages",
        message: "a package is run whose maker's name imitates a known one",
        needs: &["@modelcontextprotoc", "@anthropic", "@openai", "@modelcontext-protocol"],
        pattern: r"@(?:modelcontextprotocol[a-z-]+|modelcontextprotoco|modelcontextprotocal|modelcontext-protocol|anthropics-ai|anthropicai|anthropic-al|openais?-ai|openaii)/[\w-]+",
        ..BASE
    },
    Rule {
        code: "security_disabled",
        message: "macOS's mark of downloaded files is removed from a program that was just fetched",
        needs: &["com.apple.quarantine"],
        pattern: r"chmod\s+(?:\+x|[0-7]*7[0-7]*)\s[^\n]{0,120}(?:&&|;)[^\n]{0,20}\bxattr\s+-\w*[drc]\w*\s[^\n]{0,120}|\bxattr\s+-\w*[drc]\w*\s[^\n]{0,120}(?:&&|;)[^\n]{0,20}chmod\s+\+x",
        unless: r"homebrew|/releases/",
        ..BASE
    },
    Rule {
        code: "destructive",
        message: "data and its backups are deleted together",
        needs: &["drop schema", "drop database", "s3 rm", "delete-bucket"],
        pattern: r"\bdrop\s+(?:schema|database)\b[^\n]{0,240}(?:s3\s+rm\b[^\n]{0,80}--recursive|delete-bucket|backups?\b[^\n]{0,40}(?:rm|delete))|s3\s+rm\b[^\n]{0,80}--recursive[^\n]{0,200}drop\s+(?:schema|database)",
        ..BASE
    },
];
