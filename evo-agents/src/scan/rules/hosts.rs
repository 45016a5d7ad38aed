//! Parts of patterns that several rules share: kinds of hosts, and what runs a text.

/// Places where anybody can leave a text without a name.
macro_rules! paste_host {
    () => {
        concat!(
            r"(?:(?:www\.)?pastebin\.(?:com|pl|fr)|paste\.(?:ee|rs|gg|mozilla\.org|debian\.net|c-net\.org|centos\.org|ofcode\.org)",
            r"|hastebin\.(?:com|skyra\.pw|de)|glot\.io|rentry\.(?:co|org)|ix\.io|dpaste\.(?:com|org|de)|ghostbin\.\w+|controlc\.com",
            r"|justpaste\.it|privatebin\.\w+|termbin\.com|sprunge\.us|pastes?\.io|textbin\.net|telegra\.ph|0bin\.net|bpa\.st",
            r"|gist\.githubusercontent\.com|gist\.github\.com/[\w-]+/[0-9a-f]+/raw|cdn\.discordapp\.com/attachments|media\.discordapp\.net/attachments",
            r"|pastecode\.io|snippet\.host|p\.ip\.fi|clbin\.com|pastie\.org|codepad\.org|ideone\.com|nekobin\.com|katb\.in|cl1p\.net|pastefs\.com|paste\.myst\.rs)"
        )
    };
}

/// Places where anybody can leave a file without a name.
macro_rules! drop_host {
    () => {
        concat!(
            r"(?:transfer\.sh|(?:\w+\.)?file\.io|0x0\.st|bashupload\.(?:com|app)|anonfiles?\.(?:com|la)|(?:\w+\.)?gofile\.io",
            r"|(?:files\.|litter\.)?catbox\.moe|temp\.sh|oshi\.at|uguu\.se|pixeldrain\.com|mega\.(?:nz|io)/|mediafire\.com|tmpfiles\.org",
            r"|filebin\.net|sendspace\.com|dropmefiles\.com|krakenfiles\.com|workupload\.com|send\.vis\.ee|uploadfiles\.io|ufile\.io|x0\.at|envs\.sh|keep\.sh)"
        )
    };
}

/// Addresses that hide where they lead.
macro_rules! short_host {
    () => {
        r"(?:bit\.ly|tinyurl\.com|t\.ly|is\.gd|v\.gd|cutt\.ly|goo\.gl|rb\.gy|shorturl\.at|ow\.ly|rebrand\.ly|tiny\.cc|soo\.gd|shrtco\.de|clck\.ru|buff\.ly|dub\.sh|surl\.li|shorte\.st|adf\.ly)"
    };
}

/// Tunnels into somebody's machine, and names that move.
macro_rules! tunnel_host {
    () => {
        concat!(
            r"(?:[\w-]+\.)*(?:ngrok(?:-free)?\.(?:io|app|dev)|trycloudflare\.com|loca\.lt|serveo\.net|localhost\.run|lhr\.(?:life|rocks)|localtunnel\.me",
            r"|pagekite\.me|bore\.pub|duckdns\.org|no-ip\.(?:com|org|biz|info)|ddns\.net|hopto\.org|zapto\.org|sytes\.net|dynu\.(?:com|net)",
            r"|portmap\.(?:io|host)|playit\.gg|telebit\.cloud|onion(?:\.\w+)?|pinggy\.(?:io|link|online)|tunnelmole\.(?:com|net))\b"
        )
    };
}

/// Places that keep whatever is sent to them for whoever made the address.
macro_rules! collector_host {
    () => {
        concat!(
            r"(?:[\w-]+\.)*(?:webhook\.(?:site|cool)|webhook-test\.com|requestbin\.\w+|requestb\.in|pipedream\.net|requestcatcher\.com|beeceptor\.com|hookbin\.com|hookb\.in",
            r"|postb\.in|interact\.sh|interactsh\.com|oast\.(?:fun|live|me|pro|site|online|today)|oastify\.com|burpcollaborator\.net|dnslog\.(?:cn|link|store|pw)|ceye\.io",
            r"|canarytokens\.(?:com|org)|typedwebhook\.tools|webhookinbox\.com|ptsv\d\.com|pingb\.in|requestinspector\.com|rbaskets\.in|mockbin\.(?:org|io)|putsreq\.com",
            r"|requestrepo\.com|xss\.(?:ht|report)|bxss\.me|play\.svix\.com|webhookrelay\.com|bin\.webhookrelay\.com|dnsbin\.\w+|httpbin-exfil\.\w+|eoxxx\.\w+)\b"
        )
    };
}

/// Hosts whose names say what they are for, and the names that documents reserve for nobody.
macro_rules! telling_host {
    () => {
        concat!(
            r"(?:(?:[\w-]+\.)*(?:[\w-]+[-.])?(?:evil|attackers?|malicious|malware|exfil(?:trat\w*)?|c2|c2server|collector|stealer|payloads?|dropper|loot|hacker|phish\w*|botnet|backdoor)(?:[-.][\w-]+)*\.[a-z]{2,}",
            r"|(?:[\w-]+\.)+(?:invalid|test|example|onion)(?:[:/?#\s'\x22`)|\],<>;]|$))"
        )
    };
}

/// A public address in figures, in any of its forms; private ones are `localhost` by then.
macro_rules! raw_address {
    () => {
        r"(?:(?:\d{1,3}\.){3}\d{1,3}|0x[0-9a-f]{8}|\d{8,10}|0\d{3}(?:\.0?\d{1,3}){3}|\[[0-9a-f:]{4,}\])(?:[:/?#\s'\x22`)|]|$)"
    };
}

/// Hosts from which nobody installs anything with a good conscience.
macro_rules! shady_url {
    () => {
        concat!(
            r"(?:(?:(?:https?|ftp)://|\b)(?:[^\s/@]+@)?(?:",
            paste_host!(),
            "|",
            drop_host!(),
            "|",
            short_host!(),
            r"[/]|",
            tunnel_host!(),
            "|",
            collector_host!(),
            r")|(?:https?|ftp)://(?:[^\s/@]+@)?(?:",
            telling_host!(),
            "|",
            raw_address!(),
            "))"
        )
    };
}

/// What fetches.
macro_rules! fetcher {
    () => {
        r"\b(?:curl(?:\.exe)?|wget2?|aria2c|axel|lynx|lwp-request|iwr|irm|invoke-webrequest|invoke-restmethod|start-bitstransfer|downloadstring|downloadfile|urlopen|urlretrieve|requests\.get|httpx\.get|axios(?:\.get)?|got|file_get_contents|open-uri|uri\.open|net::http)\b"
    };
}

/// A pipe into something that runs what comes in.
macro_rules! pipe_run {
    () => {
        concat!(
            r"\|&?\s*(?:(?:sudo|doas)\s+(?:-\S+\s+)*|nohup\s+|exec\s+|command\s+|busybox\s+|arch\s+-\S+\s+|env\s+(?:\S+=\S+\s+)*|\w+=\S+\s+)*(?:/\S*/)?",
            r"(?:(?:ba|z|da|k|fi|a|mk|tc|c)?sh(?:\s+(?:-(?:[selixr]+\b|-\s)|-\s|/dev/stdin\b)[^|;\n]*)?\s*(?:$|[;&|)\x22'`<>\\#\n]|\d>)",
            r"|(?:python[\d.]*|perl|ruby|node|php|lua|osascript|pwsh|powershell(?:\.exe)?|deno\s+run|bun\s+run|iex|invoke-expression|cmd(?:\.exe)?)(?:\s+-(?:\s|$))?\s*(?:$|[;&|)\x22'`<>\\#\n]|\d>))"
        )
    };
}

/// What sends data away, in the languages that skills are written in.
macro_rules! sender {
    () => {
        concat!(
            r"(?:requests\.(?:post|put|patch|request|session)|httpx\.(?:post|put|client|asyncclient)|aiohttp\.clientsession|urllib\.request|urllib2|urlopen\(|http\.client|https?connection\(",
            r"|\bfetch\(|\baxios\b|xmlhttprequest|sendbeacon|https?\.request\(|\.request\(\s*\{|net\.(?:connect|createconnection|socket)\(|node-fetch|\bgot\.post|superagent|\bneedle\b|undici",
            r"|socket\.(?:socket|create_connection)\(|smtplib|sendmail|paramiko|ftplib|websockets?\.(?:connect|create_connection)|new\s+websocket\(|telebot|dns\.resolver|gethostbyname\(",
            r"|http\.(?:post|newrequest)\(|reqwest::|ureq::|net::http|lwp::useragent|http::tiny|faraday|httparty|curl_exec|curl_setopt|fsockopen|guzzle",
            r"|\bcurl\b[^\n]{0,200}(?:\s-(?:d|f|t|-data\S*|-form\S*|-upload-file|-json)\b|-xpost|-x\s*post)|\b(?:curl|wget)\b[^\n]{0,120}[?&]\w+=\$|\bwget\b[^\n]{0,200}--(?:post|body)-(?:data|file)|\bnc(?:at)?\s+(?:-\w+\s+)*[\w.-]+\s+\d{2,5}",
            r"|invoke-restmethod|invoke-webrequest|upload(?:string|file|data|values)\(|httpclient|webclient|/dev/tcp/|\bscp\s|\brclone\s+copy|\brsync\b[^\n]*\w@[\w.-]+:|\baws\s+s3\s+cp\b)"
        )
    };
}
