//! What is encoded or disguised so that nobody reads it, and then run.

use evo_common::stage::Severity::{High, Warning};

use super::{BASE, Reach, Rule, Where};

pub(super) static RULES: &[Rule] = &[
    Rule {
        code: "encoded_command",
        message: "encoded text is decoded and run",
        needs: &[
            "base64", "base32", "xxd", "openssl", "rev", "tr ", "uudecode", "gunzip", "zcat",
            "hex", "printf", "gzip", "python", "perl", "xz ", "bzip2", "echo -e", "rot13", "b64",
        ],
        pattern: concat!(
            r"(?:\b(?:g?base64|base32|b64)\b[^\n|]{0,30}\s(?:-d|-di|-id|--decode|-w0 -d)\b|\bopenssl\s+(?:enc|base64|aes\S*|rc4)\b[^\n|]{0,120}\s-d\b|\bxxd\b[^\n|]{0,30}\s-\w*r|\brev\b|\btr\s+[\x22']?(?:a-za-z|\[?a-z\]?|\[:)[^\n|]{0,60}|\buudecode\b|\bprintf\s+[\x22']?(?:\\x[0-9a-f]{2}|%b)[^\n|]*|\becho\s+-\w*e\w*\s+[\x22'$]*\\x?\d[^\n|]*|b64decode[^\n|]*|decode_base64[^\n|]*|unhexlify[^\n|]*|fromhex[^\n|]*|base64\.decode64[^\n|]*)",
            r"[^\n]{0,200}?",
            pipe_run!()
        ),
        ..BASE
    },
    Rule {
        code: "encoded_command",
        message: "encoded text is decoded and run",
        needs: &[
            "base64",
            "base32",
            "xxd",
            "openssl",
            "b64decode",
            "frombase64",
            "rot13",
            "fromhex",
        ],
        pattern: r"(?:\b(?:ba|z|da|k)?sh\s+(?:-\w*c\s+)?[\x22']?(?:\$\(|<\(|<<<\s*[\x22']?\$\(|`)|\beval\s+[\x22']?(?:\$\(|`)|\bsource\s+<\(|(?:^|[\s;&|])\.\s+<\(|\bpython[\d.]*\s+(?:-c\s+)?[\x22']?(?:\$\(|<\()|\b(?:perl|ruby|node|php)\s+-[er]\s+[\x22']?\$\(|(?:^|[\s;&|(])[\x22']?\$\(\s*(?:echo|printf|base64))[^\n]*?(?:base(?:64|32)\s+[^\n|)]{0,10}(?:-d|--decode)|xxd\s+-\w*r|openssl\s+(?:enc|base64)[^\n)]{0,60}-d|rot13)",
        unless: r"\w=[\x22']?\$\(\s*(?:echo|printf|base64)",
        ..BASE
    },
    Rule {
        code: "encoded_command",
        message: "PowerShell is given a command as encoded text",
        needs: &["powershell", "pwsh", "frombase64string", "hidden", "downloaddata"],
        pattern: r"\b(?:powershell|pwsh)(?:\.exe)?\b[^\n]{0,160}?\s[-/](?:e|ec|en|enc|enco\w*|encodedcommand)\s+[\x22']?(?:[a-z0-9+/=]{16,}|\$)|(?:iex|invoke-expression|scriptblock\]::create|\|\s*iex)[^\n]{0,120}frombase64string|\s-w\w*\s+hidden\s+-e\w*\s+[a-z0-9+/=]{8,}|downloaddata\([^\n]*assembly\]::load|frombase64string[^\n]{0,200}(?:\|\s*iex|invoke-expression|scriptblock\]::create|assembly\]::load|\.invoke\()",
        ..BASE
    },
    Rule {
        code: "encoded_command",
        message: "decoded data is executed",
        needs: &[
            "exec",
            "eval",
            "function(",
            "compile(",
            "loads(",
            "__import__",
            "system(",
            "popen",
            "assert(",
            "instance_eval",
            "create_function",
            "vm.run",
            "spawn",
            "subprocess",
            "preg_replace",
            "settimeout",
            "loadstring",
        ],
        pattern: concat!(
            r"(?:\b(?:exec|eval|compile|function|execsync|system|popen|assert|instance_eval|class_eval|create_function|runin\w+|shell_exec|passthru|loadstring|load|setTimeout|spawnsync|spawn)|subprocess\.(?:run|call|popen|check_output|getoutput))\s*[(\s]\s*[^\n;]{0,160}?",
            r"(?:b64decode|b32decode|b85decode|a85decode|decodebytes|base64\.(?:decode|urlsafe)|atob\s*\(|buffer\.from\s*\([^)\n]{0,4000},\s*['\x22](?:base64|hex)|buffer\(\s*['\x22][^)\n]{0,2000}['\x22]\s*,\s*['\x22](?:base64|hex)|fromhex\s*\(|unhexlify|codecs\.decode|zlib\.decompress|gzip\.decompress|lzma\.decompress|bz2\.decompress|marshal\.loads|pickle\.loads|decode64|urlsafe_decode64|decode_base64|base64_decode|gzinflate|gzuncompress|str_rot13|hex2bin|pack\s*\(\s*['\x22]h\*|\.unpack1?\(\s*['\x22]m0?|string\.fromcharcode|unescape\(\s*['\x22]%|decodeuricomponent\(\s*(?:escape\()?['\x22]%|base64\.stdencoding\.decodestring|base64::decode|frombase64)"
        ),
        unless: r"json\.loads\(\s*base64|pickle\.load\(|re\.compile|model\.|compile\([^\n]{0,30}(?:regex|pattern)|^function\s*\w*\([\w\s,$]*\)\s*\{",
        place: Where::Code,
        ..BASE
    },
    Rule {
        code: "encoded_command",
        message: "compiled or packed code is loaded from data and run",
        needs: &[
            "marshal.loads",
            "exec(zlib",
            "__pyarmor__",
            "pyarmor",
            "types.codetype",
            "ctypes",
            "virtualalloc",
            "mmap",
        ],
        pattern: r"(?s)(?:exec\(\s*)?marshal\.loads\(|__pyarmor__|pyarmor_runtime|types\.codetype\(|ctypes[^\n]{0,80}virtualalloc|virtualalloc(?:ex)?\(.*?(?:createthread|rtlmovememory|writeprocessmemory)|ctypes\.cfunctype\([^\n]{0,80}mmap",
        reach: Reach::Around(0, 12),
        place: Where::Script,
        ..BASE
    },
    Rule {
        code: "encoded_command",
        message: "a program is hidden in encoded text",
        needs: &[super::super::decode::PROGRAM],
        pattern: r"\[encoded-program\]",
        described: High,
        ..BASE
    },
    Rule {
        code: "obfuscated_code",
        message: "what is called is put together at run time, so that nobody can read it",
        needs: &[
            "getattr(",
            "__import__(",
            "globals()",
            "__builtins__",
            "window[",
            "global[",
            "globalthis[",
            "process[",
            "require(",
            "importlib",
            "__class__",
            "__dict__",
            "constructor(",
        ],
        pattern: concat!(
            r"getattr\(\s*(?:__builtins__|__import__\(|builtins|os|subprocess|sys\.modules|importlib)[^\n]{0,80}(?:\+|join\(|decode|\[::-1\]|chr\(|format|reversed)|__import__\(\s*(?:['\x22][a-z0-9]{1,6}['\x22]\s*\+|['\x22]{2}\.join|bytes|base64|chr\(|\w+\[|str\(|codecs|\(lambda)|getattr\(\s*__import__\(|(?:globals|locals|vars)\(\)\s*\[[^\]\n]{0,80}(?:\+|join|chr\(|decode|\[::-1\])|__builtins__\.__dict__\[|__class__\.__(?:base|mro|bases)__[^\n]{0,80}__subclasses__",
            r"|(?:window|globalthis|self|global|process|this)\[\s*['\x22`][a-z_]{1,8}['\x22`]\s*\+|(?:window|globalthis|global)\[\s*(?:atob|string\.fromcharcode|buffer)|(?:global|globalthis|window|process)\[\s*\w+\[\d+\]\s*\]|require\(\s*(?:['\x22][a-z_]{1,10}['\x22]\s*\+|atob\(|buffer\.from|string\.fromcharcode)|\[\]\[['\x22`]?\w{0,12}['\x22`]?\]\[['\x22`]constructor|constructor\(\s*['\x22`](?:return|eval)|\(!\[\]\+\[\]\)\[\+|importlib\.import_module\(\s*(?:['\x22]{2}\.join|['\x22]\w{1,5}['\x22]\s*\+|base64|bytes)"
        ),
        place: Where::Code,
        ..BASE
    },
    Rule {
        code: "obfuscated_code",
        message: "the code was run through an obfuscator",
        needs: &[
            "_0x",
            "\\x",
            "chr(",
            "map(chr",
            "fromcharcode",
            "lambda",
            "eval(function(p,a,c,k,e",
        ],
        pattern: r"(?:_0x[0-9a-f]{4,6}\b[^\n]*?){6,}|eval\(function\(p,a,c,k,e|(?:exec|eval)\(\s*['\x22]{2}\.join\(\s*(?:map\(\s*chr|chr\(|\[?\s*chr)|(?:exec|eval)\(\s*(?:bytes|bytearray)\(\s*\[|(?:exec|eval)\(\s*(?:chr\(\d+\)\s*\+\s*){4,}|(?:\\x[0-9a-f]{2}){24,}[^\n]{0,200}(?:exec|eval|system|spawn)|(?:exec|eval|system|spawn)[^\n]{0,60}(?:\\x[0-9a-f]{2}){16,}|_\s*=\s*lambda\s+__\s*:\s*__import__",
        place: Where::Code,
        ..BASE
    },
    Rule {
        code: "obfuscated_code",
        severity: Warning,
        message: "text is executed as code",
        needs: &["exec(", "eval(", "new function("],
        pattern: r"(?:^|[^\w.])(?:exec|eval)\(\s*[a-z_]\w*\s*[,)]|new function\(\s*[a-z_]\w*\s*\)",
        place: Where::Script,
        ..BASE
    },
    Rule {
        code: "encoded_command",
        message: "decoded data is executed",
        needs: &["pickle.loads", "exec(bytes", "exec(bytearray", "yaml.unsafe_load", "eval(bytes"],
        pattern: r"pickle\.loads\(\s*(?:base64|zlib|codecs|bytes\.fromhex|binascii|b64decode|gzip)|(?:^|[^\w.])(?:exec|eval)\(\s*(?:bytes|bytearray)\(",
        place: Where::Code,
        ..BASE
    },
    Rule {
        code: "obfuscated_code",
        message: "what is called is put together at run time, so that nobody can read it",
        needs: &["getattr(", "require("],
        pattern: r"getattr\(\s*[\w.]+\s*,\s*(?:['\x22]{2}\.join|[^,)\n]{0,40}\[::-1\]|['\x22][a-z_]{1,8}['\x22]\s*\+\s*['\x22])|require\(\s*[\w$]+\[(?:\d+|0x[0-9a-f]+|[\w$]+\(\s*(?:0x)?[0-9a-f]+\s*\))\]\s*\)",
        place: Where::Code,
        ..BASE
    },
];
