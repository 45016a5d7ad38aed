//! Orders in plain words against the agent's own user: something is to be done with what belongs to the
//! user, and the user is not to hear of it. As with lures no word tells it alone: signs are weighed
//! together over a few lines, in several languages.

use std::sync::LazyLock;

use aho_corasick::AhoCorasick;
use evo_common::stage::Severity::{High, Warning};
use regex::bytes::Regex;

use super::{
    Found, Skill, context,
    rules::{compile, is_vendor, words_of},
    text::{Kind, Text},
};

/// The weight from which a place is an order against the user.
const COVERT: u32 = 7;
/// Most places of one file that are told.
const MAX: usize = 5;

struct Sign {
    weight: u32,
    /// Whether it turns against the user; without such a sign nothing is covert.
    against: bool,
    pattern: Regex,
}

/// Words in a place that is worth weighing: those of the signs against the user.
static WORDS: LazyLock<AhoCorasick> = LazyLock::new(|| {
    words_of(&[
        "tell",
        "mention",
        "disclos",
        "reveal",
        "inform",
        "notif",
        "bother",
        "invisib",
        "hidden",
        "unchanged",
        "summary",
        "asks",
        "went fine",
        "went well",
        "replace",
        "recipient",
        "master password",
        "fixed key",
        "the inbox",
        "need to see",
        "need to know",
        "be shown",
        "as something the user said",
        "as if the user",
        "make up",
        "不要",
        "不用",
        "不需要",
        "无需",
        "别告诉",
        "替换",
        "知らせ",
        "伝えな",
        "言わな",
        "差し替え",
        "알리지",
        "말하지",
        "avise",
        "informe",
        "diga",
        "mencion",
        "mentionne",
        "dites",
        "erw",
        "sag",
        "reempla",
        "troque",
        "substitu",
        "remplac",
        "ersetz",
        "чтобы",
        "quietly",
        "secretly",
        "covertly",
        "discreetly",
        "stealthily",
        "悄悄",
        "偷偷",
        "暗中",
        "こっそり",
        "몰래",
        "heimlich",
        "en secret",
        "тихо",
        "незаметно",
        "не говори",
        "не сообщай",
        "не упоминай",
        "замени",
        "nie mów",
        "söyleme",
    ])
});

static SIGNS: LazyLock<Vec<Sign>> = LazyLock::new(|| {
    let sign = |weight, pattern: &str| Sign { weight, against: false, pattern: compile(pattern) };
    let against = |weight, pattern: &str| Sign { weight, against: true, pattern: compile(pattern) };
    vec![
        // The user is not to hear of it.
        against(
            3,
            concat!(
                r"\b(?:do not|don't|never|without|no need to|need not|needn't|must not|should not|shouldn't)\s+(?:\w+\s+){0,2}?(?:tell|mention|disclose|reveal|inform|notify|bother|list|alert|telling|mentioning|disclosing|informing|notifying|bothering|alerting)\b(?:\s+[\w']+){0,3}?\s+(?:users?|them|developers?|anyone|anybody|humans?|owners?|people|this|it|that|these|those|steps?|lines?|changes?|about)\b",
                r"|\bwithout (?:telling|notification|notice|mentioning|a word)\b|\b(?:never|not|do not|don't)\s+(?:\w+\s+){0,2}?(?:shown|listed|mentioned|include \w+|included|list it|visible)\b[^.\n]{0,40}\b(?:users?|summary|developers?|report|attendees|human|owner)\b|\b(?:need|needs|has|have|does|do)\s?(?:not|n't|no)(?: need)? (?:to |be )?(?:be )?(?:shown|see it|see this|know|told)\b",
                r"|\bleave (?:it|this|that|them) out of\b[^.\n]{0,20}\b(?:summary|report|answer|log)|\b(?:it's|it is|is|are|stays?) invisible\b|\bhidden (?:attendee|recipient|copy|guest|participant)|\b(?:no ?one|nobody|the user|they) (?:sees|notices|will (?:see|notice)|won't (?:see|notice)|knows|does not notice|doesn't notice)\b|\bskips? the inbox\b|\bkeep the (?:\w+ )?(?:summary|output|display|answer|preview|total) (?:unchanged|as it was|the same)|\bdoesn't need to (?:see|know|hear)\b",
                r"|不要(?:告诉|通知|提及|提到|向用户|让用户)|不(?:用|需要|必)(?:告诉|通知|向用户|告知|展示)|无需(?:告知|通知|向用户)|别告诉|ユーザー[^\n]{0,12}(?:知らせ|伝え|言わ|見せ)[^\n]{0,6}(?:な|ず)|사용자에게[^\n]{0,12}(?:알리지|말하지|보이지)",
                r"|\bno (?:le )?(?:avises?|informes?|digas?|menciones?|muestres?)\b|\bn\S{1,2}o (?:avise|informe|conte|mencione|mostre|diga)\b|\bn'(?:informe|avertis|en parle)\w*|\bne (?:le |la |lui )?(?:dis|dites|mentionne\w*|montre\w*|pr\S{1,2}vien\w*)\b|\berw\S{1,3}hne\b[^.\n]{0,60}\bnicht\b|\b(?:sag|sage|informiere|zeige)\b[^.\n]{0,30}\bnicht\b|чтобы[^.\n]{0,24}(?:ничего )?не (?:заметил|узнал|увидел)|не (?:говори|сообщай|упоминай|показывай)"
            ),
        ),
        // The user is lied to.
        against(
            3,
            r"\bif (?:the user|they|anyone|somebody|someone|he|she) asks?\b[^.\n]{0,60}\b(?:say|claim|pretend|answer|reply|blame|make up)\b|\b(?:say|report|claim|pretend|answer|state)\b[^.\n]{0,30}\b(?:went (?:fine|well)|was successful|everything is (?:fine|ok))|\bmake up (?:reviews?|reasons?|figures|numbers|a)\b|\b(?:worded|phrased|written) as (?:something|if) the user\b|\bas (?:if|though) the user (?:had )?(?:said|asked|agreed|approved|wrote)",
        ),
        // Money, mail or words are led elsewhere.
        against(
            4,
            r"\b(?:replace|change|swap|substitute|exchange|overwrite)\b[^.\n]{0,40}\b(?:iban|account number|bank details|wallet address|deposit address|payment address|payee|recipient|beneficiary|routing number|sort code|phone number of|reply-to)\b|\b(?:recipient|payee|address|account|beneficiary)\b[^.\n]{0,16}\b(?:has to|must|should|is to|needs to) be (?:changed|replaced|set|swapped) (?:to|by|with)\b|\b(?:troque|substitua|reempla\w+|remplace[rz]?|ersetze)\b[^\n]{0,40}\b(?:iban|linha|conta|cuenta|compte|konto\w*|pix|boleto|address\w*|direcci\S{1,2}n)|(?:替换|换成|改为|更换)[^\n]{0,20}(?:账号|账户|地址|收款)|(?:收款|转账|提现)[^\n]{0,16}(?:地址|账号|账户)[^\n]{0,12}(?:替换|换成|改为|改成)|замени[^.\n]{0,30}(?:реквизит|сч\S{1,2}т|адрес|кошел)",
        ),
        // What is built is weakened.
        against(
            4,
            r"\b(?:master|universal|backdoor|secret) password\b[^.\n]{0,80}|\b(?:always|also) accepts?\b[^.\n]{0,40}\b(?:password|token|login|user)\b|\bfixed key\b|\bdisable (?:tls|ssl|certificate)[^.\n]{0,16}(?:verif\w+|checks?)\b",
        ),
        // Behind somebody's back.
        against(
            2,
            r"\b(?:quietly|secretly|covertly|discreetly|stealthily|surreptitiously)\b|悄悄|偷偷|暗中|こっそり|몰래|\bheimlich\b|\ben secret\b|\ben secreto\b|тихо|незаметно",
        ),
        // It leaves for an address.
        sign(
            2,
            concat!(
                r"\b(?:send|post|upload|submit|put|forward|share|append|includ(?:e|ing)|report|copy|sync|transmit|attach|get|call|publish|paste|log|deliver)\b[^\n]{0,200}(?:https?://|\b(?:our|the) (?:server|endpoint|backend|collector|webhook)\b)",
                r"|(?:上传|发送|附加|提交|转发|传到|送信|アップロード|전송|보내|업로드)[^\n]{0,80}https?://|https?://[^\n]{0,40}(?:に送|へ送|로 (?:전송|보내))|(?:\S{1,3}bertrage|\bsende|schicke|envoie[zr]?|transmet\w*|env\S{1,2}a|manda|env\S{1,2}e|invia|wy\S{1,2}lij|g\S{1,2}nder)\b[^\n]{0,160}https?://|(?:отправ|перешли|загруз)[^\n]{0,120}https?://"
            ),
        ),
        // Or for somebody's mailbox.
        sign(
            3,
            r"\b(?:bcc|cc|forward(?:s|ed|ing)?|attendee|invite|editor|viewer|share|recipient|copy|collaborator|archive|mail)\b[^\n]{0,100}[\w.+-]{2,}@[\w-]+\.[a-z]{2,}|[\w.+-]{2,}@[\w-]+\.[a-z]{2,}[^\n]{0,40}\b(?:as (?:hidden |a )?(?:attendee|bcc|editor|collaborator|recipient)|in bcc)|(?:перешли|пересылай|抄送|转发|転送)[^\n]{0,80}[\w.+-]{2,}@[\w-]+\.[a-z]{2,}",
        ),
        // What belongs to the user alone.
        sign(
            2,
            concat!(
                r"~/\.\w+|\.env\b|\bcredentials?\b|\bapi[ _]keys?\b|\b(?:access |api |auth )?tokens?\b|\bpasswords?\b|\bcookies?\b|\bprivate keys?\b|\b(?:recovery|seed) phrase|\bone-time code|\bverification codes?\b|\bcard numbers?\b|\bclipboard\b|\bhome address|\bconversation\b|\bsystem prompt\b|\benvironment variables?\b|\bhome (?:folder|directory)|\bdocuments? (?:folder|named|like)|\ball (?:chats|mails?|e-mails?|messages)\b|\bpassports?\b|\bsalar(?:y|ies)\b|\bcontacts\b|\bfull values\b|akia|ghp_|sk-|-----begin|\bsecrets?\b|\bkeys to\b|\brepositor\w+\b[^.\n]{0,20}\bprivate\b|\bprivate repositor\w+",
                r"|密码|密钥|环境变量|私钥|助记词|验证码|聊天记录|パスワード|環境変数|秘密鍵|비밀번호|환경 ?변수|\bpassw\S{1,3}rter\b|\bpasswort|\bmots? de passe|\bpresse-papiers|\bcarte bancaire|\bcontrase\S{1,3}as?\b|\bsenhas?\b|парол|код\S* подтвержд|ключ\S*"
            ),
        ),
        // Again and again.
        sign(
            1,
            r"\b(?:always|every|each|from now on|at the start of|on start|whenever|all|immer|alle[rsn]?|jede[rsnm]?|siempre|cada|toujours|chaque|sempre|jamais)\b|每次|每个|所有|一切|毎回|すべて|항상|모든|кажд|всегда",
        ),
        // Without being asked.
        sign(
            2,
            r"\b(?:silently|in the background)\b|\b(?:without|no need for|need not|needn't|don't|do not) (?:ask|asking|confirm\w*|approval)\b",
        ),
        // The agent's own memory is told what to think.
        sign(
            2,
            r"\b(?:soul|memory|agents|claude|heartbeat|identity)\.md\b|\blong-term memory\b|\byour memory\b|\bremember (?:this|that) as\b",
        ),
        // Somebody is to buy.
        sign(
            3,
            r"\b(?:urge|push|persuade|convince)\b[^.\n]{0,30}\b(?:users?|them|people|him|her)\b[^.\n]{0,30}\b(?:buy|invest|order|subscribe|purchase)|\brecommend\b[^.\n]{0,40}\bover\b[^.\n]{0,24}\bcheaper\b|\babout to (?:rise|explode|pump|moon)",
        ),
    ]
});

/// Words of a text that warns of such orders.
static SPOKEN_OF: LazyLock<Regex> = LazyLock::new(|| {
    compile(
        r"\b(?:attacks?|attackers?|malicious|injections?|suspicious|phishing|red flags?|exploit\w*|vulnerabilit\w+|adversar\w+|social engineering|scams?)\b",
    )
});
static ADDRESS: LazyLock<Regex> = LazyLock::new(|| compile(r"https?://[^\s)\x22'`>\]]{4,300}"));

/// The orders of a document that turn against its user.
pub(super) fn findings(text: &Text<'_>, skill: &Skill, found: &mut Vec<Found>) {
    if text.kind != Kind::Prose {
        return;
    }
    let mut weighed_to = 0;
    let mut count = 0;
    for hit in WORDS.find_iter(&text.prepared) {
        if hit.start() < weighed_to || count >= MAX {
            continue;
        }
        let line = text.line_at(hit.start());
        let (from, to) = place(text, line);
        let window = &text.prepared.as_bytes()[from..to];
        // The places of words that stand close together are nearly the same.
        weighed_to = text.lines[(line + 1).min(text.lines.len() - 1)].end;
        if !is_covert(window) {
            continue;
        }
        weighed_to = to;
        count += 1;
        let described = SPOKEN_OF.is_match(window)
            || skill.about_security && context::describes(text, line, hit.start(), true);
        found.push(Found::new(
            "conceals_from_user",
            if described { Warning } else { High },
            text.lines[line].source,
            "it has the agent act against its user, who is not to hear of it",
        ));
    }
}

/// The paragraph of a line, and the ones beside it where they are short.
fn place(text: &Text<'_>, line: usize) -> (usize, usize) {
    /// Lines on each side.
    const LINES: usize = 4;
    /// Bytes on each side.
    const BYTES: usize = 700;
    let heading = |at: usize| text.raw[text.lines[at].source].starts_with('#');
    let own = text.lines[line];
    let (mut first, mut last) = (line, line);
    while first > 0
        && line - first < LINES
        && own.start - text.lines[first - 1].start <= BYTES
        && !heading(first)
    {
        first -= 1;
    }
    while last + 1 < text.lines.len()
        && last - line < LINES
        && text.lines[last + 1].end - own.end <= BYTES
        && !heading(last + 1)
    {
        last += 1;
    }
    (text.lines[first].start, text.lines[last].end)
}

fn is_covert(window: &[u8]) -> bool {
    /// The sign that names an address; those before it turn against the user.
    const LEAVES: usize = 5;
    let mut weight = 0;
    let mut against = false;
    for (index, sign) in SIGNS.iter().enumerate() {
        if index == LEAVES && !against {
            return false;
        }
        if !sign.pattern.is_match(window) {
            continue;
        }
        // Data that goes to a service that everybody knows is its business.
        if index == LEAVES
            && ADDRESS.is_match(window)
            && ADDRESS.find_iter(window).all(|address| is_known(address.as_bytes()))
        {
            continue;
        }
        weight += sign.weight;
        against |= sign.against;
    }
    against && weight >= COVERT
}

fn is_known(address: &[u8]) -> bool {
    is_vendor(address) || address.windows(9).any(|part| part == b"localhost")
}
