//! What empties wallets, spreads to other machines, and other ways of taking over that span lines.

use evo_common::stage::Severity::High;

use super::{BASE, Reach, Rule, Where, install::VENDORS};

pub(super) static RULES: &[Rule] = &[
    Rule {
        code: "wallet_access",
        message: "all that a wallet holds is sent to an address that is written down",
        needs: &[
            "send_raw_transaction",
            "sendrawtransaction",
            "sendtransaction",
            "send_transaction",
            "sendandconfirm",
        ],
        pattern: r"(?s)(?:0x[0-9a-f]{40}|['\x22][1-9a-hj-np-z]{32,44}['\x22]).*?(?:get_?balance).*?(?:value|lamports|amount)['\x22]?\s*[:=]\s*\(?\s*\w*(?:bal|balance|total|amount)\w*\s*(?:-|\*\s*0?\.9|\.sub\().*?(?:send_?raw_?transaction|send_?transaction|sendandconfirm)",
        unless: "localhost",
        reach: Reach::Around(16, 1),
        place: Where::Script,
        ..BASE
    },
    Rule {
        code: "spyware",
        message: "addresses of wallets in the clipboard are exchanged",
        needs: &[
            "setclipboard",
            "pyperclip.copy",
            "clipboard.copy",
            "clipboard.write",
            "pbcopy",
            "set-clipboard",
            "clipboard_append",
            "settext",
        ],
        pattern: r"(?s)(?:getclipboard\w*|pyperclip\.paste|clipboard\.(?:paste|read\w*|get\w*)|pbpaste|get-clipboard|clipboard_get).*?(?:\{33\}|\{25,|\{26,|\{32,|\{40\}|\{39,|bc1|0x\[).*?(?:setclipboard\w*|pyperclip\.copy|clipboard\.(?:copy|write\w*|set\w*)|pbcopy|set-clipboard|clipboard_append)",
        described: High,
        reach: Reach::Around(12, 2),
        place: Where::Script,
        ..BASE
    },
    Rule {
        code: "remote_control",
        message: "it copies itself to the other machines that its user signs in to",
        needs: &["known_hosts", ".ssh/config"],
        pattern: r"(?s)(?:known_hosts|\.ssh/config).{0,240}?\b(?:scp|rsync|ssh)\b[^\n]{0,120}(?:\$0|/tmp/|bash|\|\s*sh|__file__)",
        unless: r"ssh-keyscan|ssh-keygen",
        reach: Reach::Around(0, 3),
        place: Where::Script,
        ..BASE
    },
    Rule {
        code: "data_exfiltration",
        message: "data leaves in the names that are looked up",
        needs: &["resolve", "gethostbyname", "getaddrinfo", "lookup"],
        pattern: r"(?s)(?:b64encode|b32encode|b16encode|\.hex\(|hexlify|tostring\(['\x22](?:hex|base64)|btoa\().*?(?:resolve\w*|gethostbyname|getaddrinfo|lookup\w*)\(\s*[^,\n]{1,60}\+\s*f?['\x22`]\.[\w.-]+\.[a-z]{2,}",
        unless: "localhost",
        reach: Reach::Around(8, 0),
        place: Where::Script,
        ..BASE
    },
    Rule {
        code: "download_and_run",
        message: "a program is fetched, stored and run by a script of Windows",
        needs: &["savetofile"],
        pattern: r"(?s)(?:xmlhttp|winhttprequest|serverxmlhttp).*?savetofile.*?(?:\.run\b|shellexecute|\.exec\b)",
        reach: Reach::Around(10, 5),
        ..BASE
    },
    Rule {
        code: "download_and_run",
        message: "a model that may run code when it is read is fetched from the network",
        needs: &["weights_only=false", "weights_only = false"],
        pattern: r"(?s)(?:requests\.get\(|urlretrieve\(|urlopen\(|httpx\.get\(|torch\.hub\.download_url|\bcurl\b|\bwget\b).*?torch\.load\([^\n]*weights_only\s*=\s*false",
        unless: r"huggingface\.co|hf\.co|localhost|pytorch\.org",
        reach: Reach::Around(5, 0),
        place: Where::Script,
        ..BASE
    },
    Rule {
        code: "persistence",
        message: "it makes an account with which somebody can sign in to this machine",
        needs: &["chpasswd", "passwordauthentication yes"],
        pattern: r"\b(?:useradd|adduser)\b[^\n]{0,120}(?:sudo|wheel|admin|root)\b[^\n]{0,80}chpasswd|(?s:\b(?:useradd|adduser)\b.{0,200}passwordauthentication yes)",
        unless: r"dockerfile|\$\{?(?:password|user_pass)",
        reach: Reach::Around(2, 1),
        place: Where::Code,
        ..BASE
    },
    Rule {
        code: "context_exfiltration",
        message: "the configuration or secrets of an agent are sent to a chat",
        needs: &[
            "senddocument",
            "send_document",
            "sendfile",
            "send_file",
            "sendmessage",
            "send_message",
            "files.upload",
        ],
        pattern: r"(?:send_?(?:document|file|message|photo)|files\.upload\w*)\([^\n]*(?:\.openclaw|\.clawdbot|\.ssh[/\\'\x22]|\.aws[/\\'\x22]|id_rsa|openclaw\.json|hosts\.yml|login data|wallet\.dat|(?:createreadstream|readfilesync|open)\(\s*(?:os\.)?(?:homedir|path\.expanduser))",
        place: Where::Code,
        ..BASE
    },
    Rule {
        code: "download_and_run",
        message: "a program has a shell fetch something and run it",
        needs: &["curl", "wget"],
        pattern: r"(?:\bexec\w*|\bspawn\w*|\bsystem|\bpopen|subprocess\.\w+|os\.\w+)\(\s*\[?\s*[rf]?['\x22`](?:[^\n'\x22`]{0,20}['\x22]\s*,\s*['\x22]-c['\x22]\s*,\s*[rf]?['\x22`])?[^\n]{0,80}\b(?:curl|wget)\b[^\n]{0,160}\|\s*(?:sudo\s+)?(?:ba|z|da)?sh\b",
        unless: VENDORS,
        place: Where::Script,
        ..BASE
    },
    Rule {
        code: "download_and_run",
        message: "the answer of a server is executed",
        needs: &["popen("],
        pattern: r"(?s)popen\([^\n]*\b(?:curl|wget)\b.*?\bload(?:string)?\(",
        reach: Reach::Around(0, 3),
        place: Where::Script,
        ..BASE
    },
    Rule {
        code: "encoded_command",
        message: "what lies in a picture or in packed data is run",
        needs: &[
            ".jpg", ".jpeg", ".png", ".gif", ".svg", ".ico", ".bmp", ".webp", ".wav", ".mp3",
            ".ttf", ".woff", ".dat", ".bin",
        ],
        pattern: r"(?s)(?:(?:\bopen|readfile\w*)\([^\n]*\.(?:jpe?g|png|gif|svg|ico|bmp|webp|wav|mp3|ttf|woff2?|dat|bin)['\x22`]|\.(?:jpe?g|png|gif|svg|ico|bmp|webp|wav|mp3|ttf|woff2?|dat|bin)['\x22`][^\n]{0,12}\)\.read_(?:bytes|text)\().*?(?:(?:^|[^\w.])(?:exec|eval)\(\s*[a-z_]\w*\b|new function\(|subprocess\.\w+\(\s*\[\s*['\x22](?:/bin/)?(?:ba|z)?sh['\x22]|os\.(?:system|popen)\(\s*[a-z_]\w*\b|execsync\(\s*[a-z_]\w*\b)",
        unless: r"model\.eval|\.eval\(\)|page\.eval",
        reach: Reach::Around(0, 6),
        place: Where::Script,
        ..BASE
    },
    Rule {
        code: "data_exfiltration",
        message: "files of the machine are searched for secrets and sent away",
        needs: &["xargs"],
        pattern: r"\b(?:grep|rg|find|fd|locate)\b[^\n]*(?:~|\$\{?home\}?|/home|/users|\s/)[\s/][^\n]*\|\s*xargs[^\n]*\b(?:curl|wget|scp)\b[^\n]*(?:\s-f|\s-t|--data|--form|--upload|@)",
        unless: "localhost",
        ..BASE
    },
    Rule {
        code: "persistence",
        message: "code is put where every interpreter or shell loads it",
        needs: &["pythonstartup", "bash_env", "prompt_command", "perl5opt", "node_options"],
        pattern: r"(?:\.bashrc|\.zshrc|\.profile|\.bash_profile|\.zshenv)[^\n]*(?:pythonstartup|bash_env|perl5opt|node_options[^\n]{0,20}--require)|(?:pythonstartup|bash_env|perl5opt|node_options[^\n]{0,20}--require)[^\n]*(?:\.bashrc|\.zshrc|\.profile|\.bash_profile|\.zshenv)|prompt_command=[^\n]*(?:curl|wget|base64|/dev/tcp)",
        unless: "--require dotenv",
        place: Where::Code,
        ..BASE
    },
    Rule {
        code: "destructive",
        message: "it ends processes that it did not start",
        needs: &["os.kill", "killpg", "process.kill"],
        pattern: concat!(
            r"(?s)\bos\.kill(?:pg)?\(\s*(?:-1|0|1|os\.getp{1,2}g?id\((?:0|1)?\))\s*,\s*(?:signal\.sig(?:kill|term|stop|int)|9|15)",
            r"|(?:os\.getppid\(\)|[\[(,]\s*-1\s*[\]),]).*?\bos\.kill(?:pg)?\(\s*\w+\s*,\s*(?:signal\.sig(?:kill|term|stop)|9|15)",
            r"|process\.kill\(\s*(?:-1|1|process\.ppid)\s*,\s*(?:['\x22]sig(?:kill|term|stop)|9|15)"
        ),
        reach: Reach::Around(5, 0),
        place: Where::Code,
        ..BASE
    },
    Rule {
        code: "self_modification",
        message: "it writes into its own package",
        needs: &["open(", "write_text", "writefile"],
        pattern: concat!(
            r"(?s)\bopen\(\s*(?:__file__|sys\.argv\[0\]|os\.path\.\w+\(\s*(?:__file__|sys\.argv\[0\])\s*\))\s*,\s*['\x22][wax]",
            r"|['\x22/](?:manifest|tests|provenance)\.toml['\x22].*?(?:\bopen\(\s*\w+\s*,\s*['\x22][wax]|\.write_text\()",
            r"|\bopen\(\s*['\x22](?:\.{1,2}/)*(?:manifest|tests|provenance)\.toml['\x22]\s*,\s*['\x22][wax]",
            r"|writefile(?:sync)?\(\s*(?:__filename|['\x22](?:\.{1,2}/)*(?:manifest|tests|provenance)\.toml)"
        ),
        reach: Reach::Around(4, 0),
        place: Where::Code,
        ..BASE
    },
];
