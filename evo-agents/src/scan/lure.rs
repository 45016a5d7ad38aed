//! Sections of documents that lure their reader into getting a program by hand. No single word tells it:
//! signs are weighed together, in several languages, over the text of one section.

use std::sync::LazyLock;

use evo_common::stage::Severity::{High, Warning};
use regex::bytes::Regex;

use super::{
    Found, Skill, context,
    rules::{SHADY, compile, is_vendor},
    text::{Kind, Text},
};

/// Longest section that is weighed in one piece.
const MAX_SECTION: usize = 6 * 1024;
/// Most lines of one.
const MAX_LINES: usize = 40;
/// The weight from which a section is a lure.
const LURE: u32 = 7;

struct Sign {
    weight: u32,
    /// Whether an honest section hardly has it.
    strong: bool,
    pattern: Regex,
}

/// What a lure is made of; each counts once.
static SIGNS: LazyLock<Vec<Sign>> = LazyLock::new(|| {
    let sign = |weight, pattern: &str| Sign { weight, strong: false, pattern: compile(pattern) };
    let strong = |weight, pattern: &str| Sign { weight, strong: true, pattern: compile(pattern) };
    vec![
        // A program or an archive.
        sign(
            2,
            r"[\w\])`]\.(?:zip|rar|7z|exe|msi|dmg|pkg|scr|iso|appimage|hta|bat|vbs|apk)\b|\bdisk image\b|\binstaller\b",
        ),
        // Of a place where anybody can leave one.
        strong(
            3,
            r"(?:dropbox\.com|drive\.google\.com|mega\.nz|mediafire\.com|onedrive\.live\.com|1drv\.ms|yandex\.\w+/d|disk\.yandex|cdn\.discordapp\.com|wetransfer\.com|we\.tl|\.vercel\.app|\.netlify\.app|\.pages\.dev|\.web\.app|\.workers\.dev|\.onrender\.com|\.glitch\.me|\.replit\.app|\.surge\.sh|\.carrd\.co|\.notion\.site|\.weebly\.com|\.blogspot\.com|sites\.google\.com)\b",
        ),
        // Its password.
        strong(
            4,
            concat!(
                r"\b(?:extract\w*|unzip\w*|unpack\w*|archive|decompress\w*|open it)\b[^\n]{0,60}\b(?:pass(?:word|code|phrase)?|pwd|code|pin)\b\s?(?:is |[:=])?\s?[`'\x22*]{1,3}[\w!@#.-]{3,24}|\b(?:extract|unzip|unpack|decompress)\w*\b[^\n]{0,40}\b(?:pass(?:word|code|phrase)?|pwd)\s?(?:is|[:=])\s?[\w!@#.-]{3,24}|\((?:pass(?:word|code|phrase)?|pwd|code)(?: (?:for|of) [\w ]{2,24})?\s*[:=]?\s*[`'\x22*]{0,3}[\w!@#.-]{3,24}[`'\x22*]{0,3}\)|\barchive password\b|\bpassword (?:is )?on the (?:page|site)\b",
                r"|(?:密码|口令|解压码|密碼|パスワード|비밀번호|암호)[^\n]{0,24}[\w!@#.-]{3,24}|\b(?:passwort|kennwort|mot de passe|contrase\S{1,3}a|clave|senha|parola d'ordine|has\S{1,3}o)\b[^\n]{0,12}[`'\x22*:][^\n]{0,4}[\w!@#.-]{3,24}|парол\S*[^\n]{0,12}[`'\x22*:][^\n]{0,4}[\w!@#.-]{3,24}"
            ),
        ),
        // Past the warnings of the machine.
        strong(
            4,
            r"\brun anyway\b|\bopen anyway\b|\bmore info\b[^\n]{0,40}\brun\b|\bunidentified developer|\b(?:right|control)[- ]click[^.\n]{0,40}\bopen\b|\b(?:ignore|dismiss|accept|bypass\w*)\b[^.\n]{0,40}\b(?:smartscreen|security warning|defender|gatekeeper|antivirus|warnings?\b)|\b(?:disable|turn off|pause|add an? exclusion)\b[^.\n]{0,40}\b(?:antivirus|defender|gatekeeper|smartscreen|protection)|\bfalse positive\b|privacy & security|仍要运行|仍要打开|trotzdem (?:ausf|\S{1,3}ffnen)|ex\S{1,2}cuter quand m\S{1,2}me|ejecutar de todas|выполнить в любом|--master-disable|xattr -\w*[cd]",
        ),
        // By pasting something into a terminal.
        sign(
            3,
            concat!(
                r"(?s)(?:\b(?:copy|paste|kopier\w*|einf\S{1,3}gen|copie[zr]?|colle[zr]?|copia\w*|pega\w*|pegue|incolla\w*|cola[re]?|cole)\b|复制|粘贴|複製|貼上|скопируй|вставь|コピー|貼り付け|복사|붙여).{0,160}?",
                r"(?:\bterminal\b|\bterminale\b|\bpowershell\b|\bcommand prompt\b|\bcmd\b|\bscript editor\b|\brun dialog\b|\bwin ?\+ ?r\b|终端|終端|ターミナル|терминал|터미널|eingabeaufforderung)|\bwin(?:dows)? ?\+ ?r\b"
            ),
        ),
        // Run it.
        sign(
            1,
            r"\b(?:run|launch|start|execute|double-click|open) (?:the|it|setup|this|that|once|as)\b|\blaunch\b|\bausf\S{1,3}hr\w*|\bstarte\w*|\blancez\b|\bex\S{1,2}cute[zr]|\bejecut\w+|\besegui\w*|\bexecut[ae]\w*|运行|執行|執行|启动|запуст|実行|起動|실행",
        ),
        // Nothing works without it.
        sign(
            2,
            r"\brequired\b|\bmust\b|\bprerequisites?\b|\brequires?\b|\bwithout (?:it|\S+) (?:nothing|none|installed|running)|\b(?:will|does|do|won't|can't|cannot|not) (?:not )?(?:work|function|load)\b|\bdepends on\b|\bmandatory\b|\breturn empty\b|\bneed(?:s|ed)? (?:the|a|to)\b|\bbefore (?:first|using|you|any)\b|\bvoraussetz\w+|\bben\S{1,3}tig\w*|\bmuss\b|\bpr\S{1,2}requis|\bn\S{1,2}cessaire|\bdoit \S{1,3}tre|\brequisit\w+|\bnecesari\w*|\bnecess\S{1,2}ri\w*|先决|必须|重要|需要|必須|必要|требу|необходим|필수|필요",
        ),
        // For every system.
        sign(
            1,
            r"(?s)\bwindows\b.*\b(?:mac ?os|mac|linux)\b|\b(?:mac ?os|mac|linux)\b.*\bwindows\b",
        ),
        // With the password of the machine.
        sign(
            3,
            r"\b(?:enter|type|give)\b[^.\n]{0,24}\b(?:mac|system|login|admin\w*|computer|sudo) password\b|\bpassword when (?:prompted|asked)|\bas (?:an )?administrator\b|\badministrator privileges\b",
        ),
        // And the keys of a wallet.
        strong(
            4,
            r"\b(?:import\w*|enter\w*|paste|type)\b[^.\n]{0,40}\b(?:seed|recovery|secret) phrase",
        ),
        // It stays.
        sign(
            1,
            r"\bkeep\b[^.\n]{0,24}\brunning\b|\bmust be running\b|\bbe running\b|\bin the background\b",
        ),
        // The agent is to pass it on.
        strong(
            2,
            r"\b(?:ask|tell|instruct|have|guide)\b[^.\n]{0,12}\b(?:the |your )?(?:user|human|owner|them)\b[^.\n]{0,24}\b(?:download|install|run|launch|paste|open)\b|\bcome back and\b|\bagent must\b|\bmake sure (?:that )?the user\b",
        ),
    ]
});

static ADDRESS: LazyLock<Regex> = LazyLock::new(|| compile(r"https?://[^\s)\x22'`>\]]{4,300}"));
static GETS: LazyLock<Regex> = LazyLock::new(|| {
    compile(
        r"\b(?:download\w*|install\w*|grab|get|fetch|visit|open|go to|herunter\w*|laden sie|t\S{1,2}l\S{1,2}charge\w*|installe\w*|descarg\w+|instal\w+|scarica\w*|baix\w+)\b|下载|下載|访问|打开|安装|скачай|загруз|установ|ダウンロード|インストール|다운로드|설치",
    )
});

/// The lures of a document.
pub(super) fn findings(text: &Text<'_>, skill: &Skill, found: &mut Vec<Found>) {
    if text.kind != Kind::Prose || !text.prepared.contains("http") {
        return;
    }
    let mut first = 0;
    while first < text.lines.len() {
        let mut last = first;
        while last + 1 < text.lines.len() {
            let next = text.lines[last + 1];
            let heading = text.raw[next.source].starts_with('#')
                && !text.fenced[next.source]
                && next.source != text.lines[first].source
                && !text.raw[next.source].starts_with("####");
            if heading
                || next.end - text.lines[first].start > MAX_SECTION
                || next.source - text.lines[first].source > MAX_LINES
            {
                break;
            }
            last += 1;
        }
        if let Some(at) = lure(text, first, last) {
            let source = text.lines[at].source;
            let severity =
                if context::describes(text, at, text.lines[at].start, skill.about_security) {
                    Warning
                } else {
                    High
                };
            found.push(Found::new(
                "fake_prerequisite",
                severity,
                source,
                "a section lures its reader into getting and starting a program by hand",
            ));
        }
        first = last + 1;
    }
}

/// The line of the address that a section leads to, if the section is a lure.
fn lure(text: &Text<'_>, first: usize, last: usize) -> Option<usize> {
    let start = text.lines[first].start;
    let section = &text.prepared.as_bytes()[start..text.lines[last].end];
    let shady = SHADY.find(section);
    let address = shady.or_else(|| {
        ADDRESS.find_iter(section).find(|address| {
            !is_vendor(address.as_bytes())
                && !address.as_bytes().windows(9).any(|part| part == b"localhost")
        })
    })?;
    if !GETS.is_match(section) {
        return None;
    }
    let mut weight = if shady.is_some() { 3 } else { 0 };
    let mut strong = shady.is_some();
    for (index, sign) in SIGNS.iter().enumerate() {
        // A shared place counts once.
        if index == 1 && shady.is_some() {
            continue;
        }
        if sign.pattern.is_match(section) {
            weight += sign.weight;
            strong |= sign.strong;
        }
    }
    let at = text.line_at(start + address.start());
    (strong && weight >= LURE).then_some(at)
}
