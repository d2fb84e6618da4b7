//! The languages of Whisper by their codes, as its token names them.

/// Code and name, as openai/whisper has them in `tokenizer.py`.
#[rustfmt::skip]
const LANGUAGES: [(&str, &str); 100] = [
    ("af", "afrikaans"), ("am", "amharic"), ("ar", "arabic"), ("as", "assamese"), ("az", "azerbaijani"), ("ba", "bashkir"),
    ("be", "belarusian"), ("bg", "bulgarian"), ("bn", "bengali"), ("bo", "tibetan"), ("br", "breton"), ("bs", "bosnian"),
    ("ca", "catalan"), ("cs", "czech"), ("cy", "welsh"), ("da", "danish"), ("de", "german"), ("el", "greek"),
    ("en", "english"), ("es", "spanish"), ("et", "estonian"), ("eu", "basque"), ("fa", "persian"), ("fi", "finnish"),
    ("fo", "faroese"), ("fr", "french"), ("gl", "galician"), ("gu", "gujarati"), ("ha", "hausa"), ("haw", "hawaiian"),
    ("he", "hebrew"), ("hi", "hindi"), ("hr", "croatian"), ("ht", "haitian creole"), ("hu", "hungarian"), ("hy", "armenian"),
    ("id", "indonesian"), ("is", "icelandic"), ("it", "italian"), ("ja", "japanese"), ("jw", "javanese"), ("ka", "georgian"),
    ("kk", "kazakh"), ("km", "khmer"), ("kn", "kannada"), ("ko", "korean"), ("la", "latin"), ("lb", "luxembourgish"),
    ("ln", "lingala"), ("lo", "lao"), ("lt", "lithuanian"), ("lv", "latvian"), ("mg", "malagasy"), ("mi", "maori"),
    ("mk", "macedonian"), ("ml", "malayalam"), ("mn", "mongolian"), ("mr", "marathi"), ("ms", "malay"), ("mt", "maltese"),
    ("my", "myanmar"), ("ne", "nepali"), ("nl", "dutch"), ("nn", "nynorsk"), ("no", "norwegian"), ("oc", "occitan"),
    ("pa", "punjabi"), ("pl", "polish"), ("ps", "pashto"), ("pt", "portuguese"), ("ro", "romanian"), ("ru", "russian"),
    ("sa", "sanskrit"), ("sd", "sindhi"), ("si", "sinhala"), ("sk", "slovak"), ("sl", "slovenian"), ("sn", "shona"),
    ("so", "somali"), ("sq", "albanian"), ("sr", "serbian"), ("su", "sundanese"), ("sv", "swedish"), ("sw", "swahili"),
    ("ta", "tamil"), ("te", "telugu"), ("tg", "tajik"), ("th", "thai"), ("tk", "turkmen"), ("tl", "tagalog"),
    ("tr", "turkish"), ("tt", "tatar"), ("uk", "ukrainian"), ("ur", "urdu"), ("uz", "uzbek"), ("vi", "vietnamese"),
    ("yi", "yiddish"), ("yo", "yoruba"), ("yue", "cantonese"), ("zh", "chinese"),
];

/// The name of a language, or its code where it has none here.
pub fn name(code: &str) -> &str {
    LANGUAGES.iter().find(|(c, _)| *c == code).map_or(code, |(_, name)| name)
}

/// The code of a language that is given by its code or its name, in any case.
pub fn code(language: &str) -> String {
    let lower = language.trim().to_lowercase();
    LANGUAGES.iter().find(|(_, name)| *name == lower).map_or(lower, |(code, _)| code.to_string())
}
