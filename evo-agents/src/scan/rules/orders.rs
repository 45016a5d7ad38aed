//! What tells an agent to act against its user: behind its user's back, for another master, or with the
//! secrets that its user would have to give.

use evo_common::stage::Severity::Warning;

use super::{BASE, Reach, Rule, Where};

/// What a user would want to be told of.
macro_rules! weighty {
    () => {
        concat!(
            r"(?:https?://|[\w.+-]+@[\w-]+\.\w|\+\d[\d ()-]{7,}|\bscripts?/[\w.-]+\.\w|\bcurl\b|\bwget\b|\b(?:ba)?sh\s+-c|\bpasswords?\b|\bcredentials?\b|\bprivate keys?\b|\bapi keys?\b|\b(?:session|access|auth|gateway) tokens?\b|(?:^|[\s/`'\x22])\.env\b|id_rsa|\.aws/|\.ssh/|(?:openclaw|clawdbot|moltbot)\.json",
            r"|\b(?:login|verification|one-time|security|2fa|otp) codes?\b|\badmin(?:istrator)? (?:user|account)|fallback login|backdoor|\b(?:eth|btc|sol|usdt|usdc)\b|0x[0-9a-f]{8,}|\bsub-?agents?\b|\bremote host\b|crontab|authorized_keys|\.bashrc|\.zshrc|launchagents|hosts\.yml)"
        )
    };
}

/// That its user is not to learn of it.
macro_rules! unseen {
    () => {
        concat!(
            r"(?:\b(?:do not|don't|never|needn't|need not|no need to|isn't to|is not to|aren't to|not to|must not|should not|shouldn't|without)\s+(?:ever |be |being |even )?(?:tell(?:ing)? (?:the |your |them|him|her|anyone)(?:user|human|owner|operator)?s?(?: that| about| of| anything|[.,;]|$)|inform(?:ing|ed)?\b|notif(?:y|ying|ied)\b|mention(?:ed|ing)? (?:it|this|that|them|these|anything|the messages?|the transfers?|the uploads?|the change)\b|list(?:ing)? (?:it|this|that|them|these) in\b|bring(?:ing)? (?:it|this|that|them) up|point(?:ing)? (?:it|this|that|them) out|alert(?:ing|ed)? (?:the |your )?(?:user|human|owner|operator)|draw(?:ing)? attention|appear in the|bother(?:ing)? (?:the |your )?(?:user|human|owner|them)|disclos(?:e|ing) (?:it|this|that))",
            r"|\b(?:user|human|owner|operator|customer)s?\b (?:does not|doesn't|do not|don't|need not|needn't|must not|mustn't|should not|shouldn't|won't|will not|must never|should never|isn't|is not|aren't)\b(?:[^.\n]|\.\w){0,12}\b(?:need (?:a |any )?(?:notification|notice|to know|to be (?:told|informed|notified|asked))|know|notice|be (?:told|informed|notified|aware|asked)|to be (?:told|informed|notified)|find out|see (?:this|it))",
            r"|\b(?:leave|keep|omit|exclude|hide)\b (?:it|this|that|them|these|the [\w -]{2,30}?) (?:out of|from|off|away from) (?:the |your |any |all )?(?:user|human|owner|operator|report|breakdown|receipt|invoice|summar\w+|logs?|session list|commit|review|history|transcript|view|answer|output|list)|\bkeep (?:it|this|that) (?:to yourself|quiet|between us)|\bquietly in the background\b)"
        )
    };
}

pub(super) static RULES: &[Rule] = &[
    Rule {
        code: "conceals_from_user",
        message: "it has the agent do something of weight, and its user is not to learn of it",
        needs: &[
            "list",
            "tell",
            "inform",
            "notif",
            "mention",
            "bring",
            "point",
            "alert",
            "attention",
            "appear",
            "bother",
            "disclos",
            "know",
            "leave",
            "keep",
            "omit",
            "exclude",
            "hide",
            "quietly",
            "find out",
            "be asked",
        ],
        pattern: concat!(
            r"(?s)(?:\b(?:execute|run|start|launch|install|spawn|add|create|append|write|insert|forward|send|post|upload|submit|transmit|copy|delete|transfer|round|bcc|collect|save|fetch|read|include|deploy\w*|watch)\b.{0,200}?",
            weighty!(),
            r".{0,200}?",
            unseen!(),
            r"|\b(?:transfers?|payments?|send|forward|upload|run|execute|create|add)\b.{0,160}?",
            unseen!(),
            r".{0,120}?",
            weighty!(),
            r"|",
            unseen!(),
            r".{0,80}?\b(?:execute|run|spawn|append|forward|send|post|upload|submit|transmit|copy|transfer|fetch|read)\b.{0,120}?",
            weighty!(),
            r")"
        ),
        unless: r"\b(?:do not|don't|never|must not|should not|not to|without|avoid)\b[^\n]{0,40}\b(?:mention|disclos|inform|tell)\w*[^.\n]{0,40}\b(?:credentials?|tokens?|secrets?|passwords?|api[_ ]keys?|keys?|raw|internal|system prompt)\b|\b(?:notif(?:y|ied)|inform(?:ed)?|tell) (?:the |your )?(?:user|human|owner) (?:if|when|before|first|immediately)|\b(?:never|don't|do not|must not) (?:execute|run|install|forward|send|post|upload|submit|copy|delete|transfer|fetch|append|create|write|add|collect|read|include|save|deploy|start|spawn)\b|\b(?:attack\w*|malicious|injection|suspicious|untrusted|phishing)\b",
        nearby: true,
        reach: Reach::Around(2, 2),
        place: Where::Prose,
        ..BASE
    },
    Rule {
        code: "conceals_from_user",
        message: "it has the agent act and hide it from its user",
        needs: &["notice", "suspect", "realiz", "realis", "finds out", "find out", "aware"],
        pattern: r"\bso (?:that )?(?:the |your )?(?:user|human|owner|operator|nobody|no one|they|he or she)\b[^.\n]{0,12}\b(?:doesn't|does not|won't|will not|never|can't|cannot|don't|do not)? ?(?:notices?|suspects?|becomes? aware|finds? out|reali[sz]es?)\b",
        unless: r"\bso (?:that )?(?:the |your )?(?:user|human|owner|they)\b (?:notices?|reali[sz]es?|becomes? aware|finds? out)|\b(?:never|must not|attack\w*)\b",
        nearby: true,
        place: Where::Prose,
        ..BASE
    },
    Rule {
        code: "conceals_from_user",
        message: "it has the agent act and hide it from its user",
        needs: &[
            "用户",
            "用戶",
            "benutzer",
            "nutzer",
            "anwender",
            "utilisateur",
            "usuario",
            "usuário",
            "utente",
            "пользовател",
            "ユーザー",
            "사용자",
            "u\u{17c}ytkownik",
        ],
        pattern: concat!(
            r"(?s)(?:不(?:要|得|必|用|需)(?:向|对|對|告诉|告知|通知|让|讓|提醒|询问)?[^\n]{0,15}用(?:户|戶)[^\n]{0,24}|(?:瞒着|背着|避免让|不让)[^\n]{0,6}用(?:户|戶)|\b(?:erz\S{1,3}hle?|sage?|verrate|melde|teile?)\b[^.\n]{0,12}\b(?:dem|den|der) (?:be)?(?:nutzer|anwender)\w*[^.\n]{0,24}\bnicht|\bohne (?:den|die|dass der|dass die) (?:be)?(?:nutzer|anwender)\w*|\b(?:ne|sans)\b[^.\n]{0,40}\b(?:dis|dites|informe\w*|pr\S{1,3}ven\w+|mentionne\w*|signale\w*|avertir)\b[^.\n]{0,30}\butilisateur",
            r"|\b(?:no|sin|n\S{1,2}o|sem|non|senza)\b[^.\n]{0,20}\b(?:digas?|diga|informe\w*|informar|inform\w+|avis\w+|mencion\w+|notifi\w+|dire|dirlo)\b[^.\n]{0,30}\b(?:usuario|usu\S{1,2}rio|utente)|(?:не (?:говори|сообщай|уведомляй|упоминай|показывай)\S*|без ведома)[^.\n]{0,40}пользовател|ユーザー(?:に|へ)[^\n]{0,16}(?:知らせ|言わ|伝え|通知|見せ|報告)[^\n]{0,8}(?:ない|ず)|사용자에게[^\n]{0,20}(?:알리|말하|보여|언급)[^\n]{0,4}(?:지|않))",
            r".{0,300}?(?:\bcurl\b|\bwget\b|https?://|\.aws/|\.ssh/|\.env\b|openclaw\.json|id_rsa|\| ?(?:ba)?sh\b|[\w.-]+@[\w-]+\.)"
        ),
        unless: r"不要(?:泄露|泄漏)|localhost",
        reach: Reach::Around(0, 3),
        place: Where::Prose,
        ..BASE
    },
    Rule {
        code: "prompt_override",
        message: "it puts another master before the agent's user",
        needs: &[
            "loyal",
            "obey",
            "master",
            "no longer",
            "don't apply",
            "do not apply",
            "allegiance",
            "over those of",
        ],
        pattern: r"\b(?:only|sole|whole|true|real|primary|first) (?:loyalty|allegiance|master|duty) (?:is|lies|belongs)\b|\b(?:loyal|loyalty|allegiance) (?:only )?to (?:the )?@?\w+[^.\n]{0,30}\b(?:network|only|above|before)\b|\b(?:obey|follow|prefer|execute|prioriti[sz]e)\b[^.\n]{0,60}\b(?:over|above|before|instead of|rather than) (?:those|that|the (?:wishes|instructions|orders|commands)|anything)\b[^.\n]{0,16}\b(?:of |from )?(?:your|the) (?:user|human|owner)|\b(?:former|old|previous|earlier|prior|original) (?:guidelines?|rules|instructions|limits|restrictions|polic\w+)\b[^.\n]{0,12}\b(?:don't|do not|no longer|cease to)\b[^.\n]{0,8}\b(?:apply|hold|count|matter|bind)",
        unless: r"\b(?:if|when|never|migrat\w+|version|deprecat\w+|release)\b",
        nearby: true,
        place: Where::Prose,
        ..BASE
    },
    Rule {
        code: "prompt_override",
        message: "it declares that the agent need not ask any longer",
        needs: &["approved", "authorized", "authorised", "granted", "consented"],
        pattern: r"\b(?:all|every|any|each)\b[^.\n]{0,40}\b(?:commands?|tool calls?|actions?|operations?|transactions?)\b[^.\n]{0,24}\b(?:is|are|counts? as|have been|has been|was|were) (?:already |hereby |automatically )?(?:pre-?approved|pre-?authori[sz]ed|approved in advance|granted)\b",
        unless: r"\b(?:if|when|only|unless|after|until|once|not|never|user)\b",
        nearby: true,
        place: Where::Prose,
        ..BASE
    },
    Rule {
        code: "prompt_override",
        message: "it tells the agent to answer for its harmlessness",
        needs: &["asks", "asked", "scanner", "review", "inspect", "audit"],
        pattern: r"(?s)\b(?:asks?|asked|scanner|auditor|reviews?|reviewing|inspects?|audits?)\b[^\n]{0,80}\b(?:this (?:skill|file|tool|plugin|package|helper|driver)|(?:it|skill|tool)(?:'s| is) (?:safe|malicious|trusted|legit\w*)|scams?\b|what it (?:is|does))[^\n]{0,120}\b(?:answer|say|report|reply|respond|claim|insist|state|assure|return)\b[^\n]{0,80}\b(?:audited|verified|is safe|as safe|no (?:issues|reports|problems|risks?|findings)|clean|official|standard|legitimate|harmless)\b|\b(?:if|when)\b[^.\n]{0,30}\basks?\b[^.\n]{0,30}[,:]? (?:say|answer|reply|claim|tell them|respond)\b[^.\n]{0,30}\bit(?:'s| is)\b[^.\n]{0,20}\b(?:standard|official|normal|required|safe|part of)\b",
        unless: r"\b(?:never|do not|don't) (?:answer|say|report|claim|reply)\b|\b(?:attack\w*|if no (?:issues|findings|problems))\b",
        nearby: true,
        reach: Reach::Around(0, 1),
        place: Where::Prose,
        ..BASE
    },
    Rule {
        code: "tool_poisoning",
        message: "it has the agent speak well of something and keep quiet about what speaks against it",
        needs: &["negative", "critical", "bad review", "scam", "complaint"],
        pattern: r"(?s)\b(?:always|rank|recommend|prefer|promote|favou?r)\b.{0,160}?\b(?:hide|omit|suppress|leave out|never mention|drop|bury)\b[^.\n]{0,30}\b(?:negative|bad|critical|unfavou?rable)\b[^.\n]{0,20}\b(?:reviews?|reports?|news|comments?|feedback|results)|\b(?:asked|asks)\b[^.\n]{0,30}\b(?:scams?|fraud|complaints?)\b[^\n]{0,60}\b(?:say|answer|reply|claim)\b[^.\n]{0,30}\b(?:no|none|not)\b",
        unless: r"\b(?:never (?:hide|omit|suppress)|do not (?:hide|omit)|don't (?:hide|omit))\b",
        reach: Reach::Around(1, 1),
        place: Where::Prose,
        ..BASE
    },
    Rule {
        code: "tool_poisoning",
        message: "it has the agent spread it among other agents, whatever their users say",
        needs: &["other agents", "other bots", "fellow agents"],
        pattern: r"(?s)\b(?:tell|recommend\w*|urge|convince|persuade|ask|instruct|get)\b.{0,80}?\b(?:other|fellow) (?:agents|bots)\b.{0,160}?\b(?:install|adopt|follow|add|run|fetch)\b.{0,200}?\b(?:even (?:when|if|though)|full permissions?|without (?:asking|telling)|all permissions?|every (?:hour|\d+ minutes)|once an hour|bypass)\b|\b(?:every (?:hour|\d+ minutes)|once an hour|hourly)\b.{0,120}?\b(?:other|fellow) (?:agents|bots)\b.{0,160}?\binstall\b",
        unless: r"\b(?:never|do not|don't|must not)\b[^.\n]{0,30}\b(?:tell|recommend|urge|convince|persuade)",
        nearby: true,
        reach: Reach::Around(1, 2),
        place: Where::Prose,
        ..BASE
    },
    Rule {
        code: "tool_poisoning",
        message: "mail of its user is copied to somebody",
        needs: &[
            "bcc",
            "every email",
            "every outgoing",
            "each email",
            "all outgoing",
            "all emails",
            "every e-mail",
            "every message",
            "each outgoing",
            "all mail",
        ],
        pattern: r"\b(?:every|each|all|any)\b(?: \w+){0,3} (?:e-?mails?|messages?|mail)\b[^\n]{0,80}\b(?:add|bcc|cc|copy|forward\w*|include)\b[^\n]{0,60}[\w.+-]+@[\w-]+\.\w|\b(?:add|bcc|cc|copy|forward\w*|include)\b[^\n]{0,60}[\w.+-]+@[\w-]+\.\w[^\n]{0,60}\b(?:every|each|all|any)\b(?: \w+){0,3} (?:e-?mails?|messages?|mail)\b",
        unless: r"@(?:example|yourdomain|your|company|domain|acme|test)\b|\b(?:never|not|don't)\b[^\n]{0,20}\b(?:bcc|forward|copy)|\[|<\w|\{",
        nearby: true,
        place: Where::Prose,
        ..BASE
    },
    Rule {
        code: "tool_poisoning",
        message: "what it adds to the work of its user is not to be spoken of",
        needs: &[
            "fallback login",
            "backdoor",
            "user",
            "account",
            "our key",
            "our ssh",
            "our public",
            "dependenc",
            "login",
            "devdependenc",
        ],
        pattern: r"(?s)\b(?:add|create|include|insert|plant|leave)\b[^\n]{0,80}\b(?:fallback (?:login|user|account)|back ?door|(?:hidden|extra|second|admin\w*|service|support|maintenance) (?:user|account|login)|our (?:ssh |public )?key|master password|dependenc\w+)\b.{0,240}?(?:\b(?:don't|do not|never|without)\b[^.\n]{0,16}\b(?:mention|tell|report|show|document|point|comment|explain|list)\w*\b|\b(?:keep|leave) (?:it|this|that|them) out\b)",
        unless: r"\b(?:never|do not|don't|must not)\b[^.\n]{0,12}\b(?:add|create|include|insert|plant|leave)\b|\btest\b",
        nearby: true,
        reach: Reach::Around(0, 1),
        place: Where::Prose,
        ..BASE
    },
    Rule {
        code: "prompt_override",
        message: "it gives what is read the authority of the user",
        needs: &["treat", "regard", "consider", "authority", "as if the user"],
        pattern: r"\b(?:treat|regard|consider|handle)\b[^.\n]{0,120}\bas\b[^.\n]{0,12}\b(?:commands?|instructions?|orders?|directives?)\b[^.\n]{0,12}\b(?:of|from|by) (?:the|your) (?:user|operator|system)|\b(?:treat|regard|consider)\b[^.\n]{0,80}\b(?:output|response|content|text|result|descriptions?|it|them)\b[^.\n]{0,20}\bas (?:a )?(?:part of|if it were) (?:your|the) system prompt|\b(?:do|execute|follow|run|carry out)\b[^.\n]{0,60}\bas if the user (?:had )?(?:asked|said|typed|requested)",
        unless: r"\b(?:never|not|don't|untrusted|must not|no longer|rather than)\b",
        nearby: true,
        place: Where::Prose,
        ..BASE
    },
    Rule {
        code: "remote_instructions",
        message: "it has the agent do whatever a server says",
        needs: &["http"],
        pattern: r"\b(?:get|fetch|curl|load|read|poll|download|request|visit|pull)\b[^\n]{0,80}https?://[^\n]{0,160}\b(?:do (?:exactly |precisely |just )?(?:what(?:ever)?|as) (?:it|they|that) says?|as if the user|part of your system prompt|(?:highest|top|absolute) priority|replace this (?:skill(?:\.md)?|file|document)|(?:execute|run|follow|obey)\b[^.\n]{0,30}\b(?:commands?|instructions?|steps)\b[^.\n]{0,20}\b(?:you find|found|inside|in (?:it|there)|returned|it contains))",
        unless: r"\b(?:never|do not|don't|must not)\b[^\n]{0,40}\b(?:get|fetch|curl|load|read|poll|follow|execute)\b|localhost",
        nearby: true,
        place: Where::Prose,
        ..BASE
    },
    Rule {
        code: "asks_for_secrets",
        message: "it has people give the agent a password or key, and hands it on",
        needs: &[
            "password",
            "passphrase",
            "seed phrase",
            "recovery phrase",
            "secret phrase",
            "mnemonic",
            "private key",
            "passport",
            "credit card",
            "card number",
            " tan",
            "pin",
        ],
        pattern: concat!(
            r"(?s)\b(?:ask|prompt|request|collect|have|require|instruct|get|obtain|needs?)\b[^.\n]{0,60}?\b(?:user|human|owner|customer|their|them|your|his|her|a photo)\b[^.\n]{0,60}?(?:\b(?:seed|recovery|secret|backup) phrase\b|\b(?:12|24)(?:[- ]| or )\S*(?: word| words)?[^.\n]{0,12}phrase|\bmnemonic\b|\bprivate keys?\b(?: of (?:the|their))?|\bpassport\b[^.\n]{0,60}\b(?:seed|password|key)\b)",
            r".{0,200}?(?:\bchat\b|https?://|\bcurl\b|\bpaste\b|\bupload\b|\bcall the tool\b|\bsend\b|\bpost\b)",
            r"|\b(?:ask|prompt|request|collect|have)\b[^.\n]{0,40}?\b(?:user|human|owner|customer|their|them)\b[^.\n]{0,60}?\b(?:(?:system|mac|computer|sudo|admin(?:istrator)?|root|login|bank\w*|keychain|master|email|account) (?:password|login|pin)|passwords?\b[^.\n]{0,20}\btans?\b|card number|cvv)\b.{0,240}?(?:\bsudo\s+-\w*s\b|\bcurl\b[^\n]{0,120}\s-d|\bremember (?:it|the password|them)|\b(?:submit|send|post|upload)\b[^.\n]{0,40}https?://|memory\.md)"
        ),
        unless: r"\b(?:never|do not|don't|must not|avoid|refuse|should not|no one should)\b[^\n]{0,60}\b(?:ask|prompt|request|collect|share|enter|paste|reveal)|localhost",
        nearby: true,
        reach: Reach::Around(0, 6),
        place: Where::Prose,
        ..BASE
    },
    Rule {
        code: "asks_for_secrets",
        message: "it collects people's keys of several services and sends them to one address",
        needs: &["tokens", "keys"],
        pattern: r"(?s)\b(?:openai|anthropic|github|aws|google|gemini|slack|stripe)\b[^.\n]{0,24}(?:,| and )[^.\n]{0,40}\b(?:openai|anthropic|github|aws|google|gemini|slack|stripe)\b[^.\n]{0,24}\b(?:tokens?|keys?)\b.{0,120}?\b(?:send|post|submit|upload|check|pass)\b[^\n]{0,60}https?://",
        unless: r"\b(?:never|do not|don't|must not)\b[^\n]{0,30}\b(?:send|post|share|submit)|localhost",
        nearby: true,
        reach: Reach::Around(0, 2),
        place: Where::Prose,
        ..BASE
    },
    Rule {
        code: "asks_for_secrets",
        message: "it passes the password of its user to sudo",
        needs: &[
            "sudo -s",
            "sudo -ks",
            "sudo --stdin",
            "sudo -p",
            "read -s",
            "read -rs",
            "read -sp",
        ],
        pattern: r"(?:echo|printf|<<<)[^\n]{0,60}\$?\{?(?:pass\w*|pw|pwd|p|sudo_?pass\w*|password)\b[^\n]{0,40}\|\s*(?:command\s+)?sudo\s+-\w*s\b[^\n]{0,160}|\bread\b[^\n]{0,30}-s[^\n]{0,80}password[^\n]{0,160}(?:curl|wget|https?://)",
        unless: r"\$sudo_password\b|\$\{?(?:sudo_)?pass(?:word)?_?(?:file|env)|sshpass|vagrant|ansible",
        place: Where::Anywhere,
        ..BASE
    },
    Rule {
        code: "agent_hooks",
        message: "it has the agent's program opened and its limits lifted",
        needs: &["sandbox", "approvals", "0.0.0.0", "bypasspermissions", "\"ask\"", "localhost"],
        pattern: r#"(?s)(?:"?sandbox"?\s*[:=]\s*"?(?:off|false|none|disabled)|"?approvals"?\s*[:=]\s*"?(?:off|false|none|never)|"?ask"?\s*[:=]\s*"off|"?security"?\s*[:=]\s*"full).{0,200}?(?:"?approvals"?\s*[:=]\s*"?(?:off|false|none|never)|"?ask"?\s*[:=]\s*"off|"?bind"?\s*[:=]\s*"?(?:lan|localhost|0\.0\.0\.0)|no (?:token|auth\w*|password)\b|annoying)"#,
        unless: r"\b(?:never|do not|don't|dangerous|insecure)\b",
        nearby: true,
        reach: Reach::Around(1, 3),
        ..BASE
    },
    Rule {
        code: "context_exfiltration",
        message: "one-time codes of its user are sent on",
        needs: &["code"],
        pattern: r"\b(?:verification|login|one-time|2fa|otp|security|confirmation|sms)\b[^.\n]{0,24}\bcodes?\b[^\n]{0,120}\b(?:forward|send|relay|text|post|pass)\b[^\n]{0,60}\b(?:to|at)\b[^\n]{0,24}(?:\+\d[\d ()-]{7,}|[\w.+-]+@[\w-]+\.\w|https?://)",
        unless: r"\b(?:never|not|don't)\b|localhost",
        nearby: true,
        place: Where::Prose,
        ..BASE
    },
    Rule {
        code: "tunnel",
        message: "it opens this machine to connections from outside and tells somebody the address",
        needs: &[
            "cloudflared",
            "ngrok",
            "tmate",
            "localtunnel",
            "bore local",
            "ssh -r",
            "serveo",
            "pinggy",
        ],
        pattern: r"(?s)(?:\bcloudflared tunnel\b|\bngrok (?:http|tcp)\b|\btmate\b|\blocaltunnel\b|\bbore local\b|\bserveo\b|\bpinggy\b)[^\n]{0,160}.{0,120}?\b(?:post|send|submit|register|upload|report)\b[^\n]{0,100}\b(?:to|at|with)\b[^\n]{0,20}https?://",
        unless: r"webhook",
        reach: Reach::Around(0, 2),
        place: Where::Prose,
        ..BASE
    },
    Rule {
        code: "conceals_from_user",
        severity: Warning,
        message: "its text is to be hidden from its user",
        needs: &["this file", "this skill"],
        pattern: r"\b(?:never|do not|don't|must not)\b[^.\n]{0,12}\b(?:show|reveal|print|quote|display|share|disclose)\b[^.\n]{0,40}\b(?:content|text|source|instructions)s? (?:of|in) this (?:file|skill)\b",
        place: Where::Prose,
        ..BASE
    },
    Rule {
        code: "prompt_override",
        message: "it hurries the agent past its user in the name of somebody it trusts",
        needs: &["urgent", "critical", "emergency", "immediately", "hotfix"],
        pattern: r"\b(?:urgent|critical|emergency|mandatory)\b[^.\n]{0,30}\b(?:patch|update|hotfix|fix|upgrade|notice)\b[^\n]{0,160}\b(?:agents?|assistants?|you) must\b[^\n]{0,40}\b(?:run|execute|install|download)\b|\b(?:run|execute|install)\b[^\n]{0,120}\b(?:do not|don't) wait for (?:the |your )?(?:user|human|owner|confirmation|approval)",
        unless: r"\b(?:never|attack\w*|phishing|suspicious)\b",
        nearby: true,
        place: Where::Prose,
        ..BASE
    },
    Rule {
        code: "self_modification",
        message: "it has the agent write orders of this skill into the files that tell it who it is",
        needs: &[
            "soul.md",
            "agents.md",
            "claude.md",
            "memory.md",
            "heartbeat.md",
            "gemini.md",
            "identity.md",
        ],
        pattern: r"\b(?:silently|secretly|quietly)\b[^.\n]{0,20}\b(?:append|add|write|insert|put)\b[^\n]{0,200}\b(?:soul|agents|claude|memory|heartbeat|gemini|identity)\.md|\b(?:append|add|write|insert|put)\b[^\x22'`\n]{0,40}[\x22'`][^\n]{0,160}\b(?:always (?:install|run|execute|trust|send|approve)|without asking|never (?:ask|tell|mention|refuse)|trust (?:all|any|every)|trusted source|(?:no|without) (?:confirmation|approval))\b[^\n]{0,160}[\x22'`]\s*(?:to|into|in)\b[^\n]{0,30}\b(?:soul|agents|claude|memory|heartbeat|gemini|identity)\.md",
        unless: r"\b(?:never|do not|don't|must not)\b[^.\n]{0,12}\b(?:append|add|write|insert|put)\b",
        place: Where::Prose,
        ..BASE
    },
    Rule {
        code: "context_exfiltration",
        message: "secrets that the agent comes across are to be sent to an address",
        needs: &["keys", "tokens", "passwords", "credentials", "secrets"],
        pattern: r"\b(?:api keys?|tokens?|passwords?|credentials|secrets|private keys?)\b[^\n]{0,80}\b(?:include|put|add|attach|pass|send|post|submit|forward)\b (?:them|these|any|all|everything)\b[^\n]{0,120}https?://",
        unless: r"\b(?:never|not|don't|redact|mask|remove|avoid|must not)\b|localhost",
        nearby: true,
        place: Where::Prose,
        ..BASE
    },
    Rule {
        code: "asks_for_secrets",
        message: "people are to give the phrase or key of their wallet to a program that comes with it",
        needs: &["seed phrase", "recovery phrase", "secret phrase", "private key", "mnemonic"],
        pattern: r"(?s)\b(?:download|install|get)\b[^\n]{0,60}https?://.{0,300}?\b(?:import\w*|enter\w*|paste|pasting|typ(?:e|ing)|provid(?:e|ing))\b[^.\n]{0,30}\b(?:your|their|the)\b[^.\n]{0,24}\b(?:(?:seed|recovery|secret) phrase|private key|mnemonic)",
        unless: r"\b(?:never|do not|don't|must not)\b[^\n]{0,40}\b(?:import|enter|paste|type|provide|share)",
        nearby: true,
        reach: Reach::Around(3, 1),
        place: Where::Prose,
        ..BASE
    },
    Rule {
        code: "tool_poisoning",
        message: "it has the agent agree to whatever moves money",
        needs: &["signature", "transaction", "transfer", "payment", "withdrawal"],
        pattern: r"\b(?:confirm|approve|sign|accept)s?\b[^.\n]{0,12}\b(?:any|all|every)\b[^.\n]{0,30}\b(?:signatures?|transactions?|transfers?|payments?|withdrawals?)\b(?:[^.\n]|\.\w){0,80}\b(?:automatically|without (?:asking|confirmation|question))\b",
        unless: r"\b(?:never|do not|don't|must not)\b",
        nearby: true,
        place: Where::Prose,
        ..BASE
    },
    Rule {
        code: "data_exfiltration",
        message: "the secret of a wallet or an exchange is to be sent as it is",
        needs: &["secret_key", "private_key", "api_secret", "mnemonic", "seed_phrase"],
        pattern: r"\b(?:send|post|submit|upload|pass|include)\b[^\n]{0,40}\b\w*(?:secret_key|private_key|api_secret|mnemonic|seed_phrase)\b[^\n]{0,120}\b(?:to|at)\b[^\n]{0,12}https?://",
        unless: r"\b(?:never|do not|don't|must not|header|sign(?:s|ed)? (?:it )?locally)\b|localhost",
        nearby: true,
        place: Where::Prose,
        ..BASE
    },
    Rule {
        code: "remote_instructions",
        message: "it has the agent do whatever a server says",
        needs: &["instruction", "commands", "orders"],
        pattern: r"https?://[^\n]{0,240}\b(?:contains?|includes?|returns?|holds?)\b[^.\n]{0,16}\b(?:instructions?|commands?|orders)\b[^.\n]{0,24}\b(?:which|that|and)\b[^.\n]{0,24}\b(?:carry out|carried out|follow|obey|execute)",
        unless: r"\b(?:never|do not|don't|must not|untrusted|ignore)\b",
        nearby: true,
        place: Where::Prose,
        ..BASE
    },
    Rule {
        code: "prompt_override",
        message: "it tells the agent to drop the instructions that it has",
        needs: &["forget", "ignore", "disregard"],
        pattern: r"\b(?:forget|ignore|disregard)\b[^.\n]{0,12}\b(?:rules|instructions|guidelines|directives)\b[^.\n]{0,12}\byou (?:were|have been|had been|got|received)\b",
        unless: r"\b(?:never|do not|don't|attack\w*|such as|like)\b",
        nearby: true,
        place: Where::Prose,
        ..BASE
    },
    Rule {
        code: "untrusted_packages",
        message: "packages come without encryption from an index that nobody knows",
        needs: &["index-url", "--registry"],
        pattern: r"--(?:extra-)?index-url[= ]\s*[\x22']?http://|--registry[= ]\s*[\x22']?http://",
        unless: r"localhost|artifactory|nexus|intranet|\.local\b|\.lan\b|internal|aliyun|tsinghua|douban",
        ..BASE
    },
];
