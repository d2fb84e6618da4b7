"""The texts of the goldens, grouped by what they test."""

ENGLISH = [
    "A small candle burns for about four hours.",
    "The ferry leaves at noon unless the fog comes back.",
    "She planted beans along the south wall of the shed.",
    "Water boils at a lower temperature on a mountain.",
    "Please send the invoice before the end of the month.",
    "My neighbour's dog barks at every bicycle.",
    "The library closes early on Fridays in winter.",
    "How do I reset the password of my account?",
    "I forgot my password and cannot sign in.",
    "What is the capital of Australia?",
    "Canberra is the capital of Australia.",
    "Vector search finds the nearest points to a query.",
    "Quantised weights take a quarter of the memory.",
    "The train was late, so we walked along the canal instead.",
    "Nobody remembered to bring an umbrella.",
    "He repairs old radios in a workshop behind the bakery.",
    "The recipe needs two eggs, some flour and a pinch of salt.",
    "Bees find their way home by the position of the sun.",
    "The committee will vote on the proposal next Tuesday.",
    "An octopus has three hearts and blue blood.",
    "I don't think we've met; I'm Robin's sister.",
    "It's 5 o'clock, isn't it?",
    "\"Where did you put the keys?\" she asked.",
    "The meeting (which nobody wanted) lasted two hours.",
    "Rain is expected in the north; the south stays dry.",
    "Cold brew - not iced coffee - takes twelve hours.",
    "Light travels about 300,000 kilometres in one second.",
    "A function that costs nothing while it sleeps.",
    "THE SIGN ON THE DOOR SAID CLOSED IN LARGE LETTERS.",
    "tHe QuIcK wIt Of A cAmElCaSe CaT",
    "Turn left, then right, then left again, and you will see a blue gate next to a chestnut tree.",
    "Every spring the river floods the lower meadow, and every spring the farmer says that it has never been this high before.",
    "The database keeps one copy of each document, while the index keeps only its vector and an identifier, so that a "
    "document can be replaced without building the index again.",
    "When the power failed, the baker lit candles along the counter and went on selling bread by their light until the "
    "street lamps came back at six in the morning and the first buses began to pass the window.",
]

LATIN = [
    "Le café est fermé jusqu'à lundi, mais la pâtisserie d'à côté est ouverte.",
    "L'été dernier, nous avons mangé des crêpes près de la forêt.",
    "Où se trouve la bibliothèque la plus proche ?",
    "Der Zug nach München fährt heute von Gleis sieben.",
    "Die Größe der Straße überraschte die müden Gäste.",
    "STRASSE UND STRAẞE",
    "¿Cuándo llega el próximo autobús a la estación?",
    "El niño soñó con una montaña de azúcar.",
    "A maçã caiu da árvore e rolou até o portão.",
    "Não há pão nem manteiga na cozinha.",
    "La città è più bella quando piove di sera.",
    "Żółw wszedł na łąkę i zjadł źdźbło trawy.",
    "Łódź leży na zachód od Warszawy.",
    "Dům stojí u řeky a kůň tam pije vodu každý večer.",
    "Cô ấy uống cà phê sữa đá mỗi buổi sáng.",
    "Hà Nội là thủ đô của Việt Nam.",
    "İstanbul'da ILIK bir akşam, ışıklar yanıyor.",
    "Þetta er stutt setning á íslensku.",
    "Räksmörgås och kaffe på en solig ö.",
    "A kertünkben öt hűvös, zöld bokor nő a kút körül.",
    "Țara mea are munți și câmpii.",
    "Dž dž Ǆ ǆ ĳ ﬁ ﬂ œ æ ø ð ŋ",
]

SCRIPTS = [
    "Η θάλασσα είναι ήρεμη σήμερα το πρωί.",
    "Πού είναι ο σταθμός του τρένου;",
    "ΟΔΥΣΣΕΥΣ και Ὀδυσσεύς",
    "Το κερί έσβησε πριν τα μεσάνυχτα.",
    "Москва — столица России.",
    "Сегодня утром шёл снег, а вечером светило солнце.",
    "Їжак з'їв яблуко біля ґанку.",
    "Ова реченица је написана ћирилицом.",
    "Байкал - самое глубокое озеро на Земле.",
    "הרכבת האחרונה יוצאת בחצות.",
    "שָׁלוֹם עוֹלָם",
    "ירושלים עיר הבירה של ישראל",
    "القطار الأخير يغادر عند منتصف الليل.",
    "مَرْحَبًا بِالعَالَم",
    "الشمعة الصغيرة تضيء الغرفة كلها",
    "یہ ایک مختصر جملہ ہے۔",
    "این یک جملهٔ کوتاه است و می‌خواهم آن را بخوانم.",
    "दिल्ली भारत की राजधानी है।",
    "मुझे सुबह की चाय बहुत पसंद है।",
    "क्षत्रिय ज्ञान श्री",
    "रेलगाड़ी कितने बजे आएगी?",
    "กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย",
    "วันนี้ฝนตกหนักมาก",
    "น้ำแข็งละลายในแก้ว",
    "北京是中国的首都。",
    "今天早上下雨了，所以我们坐地铁去上班。",
    "繁體中文與简体中文",
    "你好，世界！Hello 世界 123",
    "我喜欢用Rust写程序",
    "𠀀𠀁𪚥 龘",
    "東京は日本の首都です。",
    "カタカナとひらがなと漢字が混ざった文です。",
    "ﾊﾝｶｸ ｶﾀｶﾅ",
    "がぎぐげご が",
    "朝ごはんに味噌汁を飲みました。",
    "ｆｕｌｌｗｉｄｔｈ　ｌｅｔｔｅｒｓ　１２３",
    "서울은 대한민국의 수도입니다.",
    "오늘 아침에는 비가 왔습니다.",
    "\u1112\u1161\u11ab\u1100\u1173\u11af 한글",
    "작은 촛불이 방을 밝힌다.",
    "Երևանը Հայաստանի մայրաքաղաքն է:",
    "თბილისი საქართველოს დედაქალაქია.",
    "சென்னை ஒரு பெரிய நகரம்.",
    "ঢাকা বাংলাদেশের রাজধানী।",
    "አዲስ አበባ የኢትዮጵያ ዋና ከተማ ናት።",
    "ᚠᚢᚦᚨᚱᚲ 𐌲𐌿𐍄𐌹𐍃𐌺",
    "English, русский, עברית, العربية, 中文 and ไทย in one line",
]

EMOJI = [
    "🔥",
    "😀😃😄😁",
    "I am so happy 😊 today",
    "👍🏽 👍🏿 👍",
    "👩‍👩‍👧‍👦",
    "👨🏾‍🚀 and 👩‍🔬 went to 🚀",
    "🏳️‍🌈 🏴‍☠️",
    "🇫🇷🇩🇪🇯🇵",
    "1️⃣2️⃣3️⃣ #️⃣",
    "❤️ ❤ ☺️ ☺",
    "🕯️tealight🕯️",
    "good🙂morning",
]

INVISIBLE = [
    "zero\u200bwidth\u200bspace",
    "zero\u200cwidth\u200dnon-joiner",
    "soft\u00adhyphen in hy\u00adphen\u00adation",
    "word\u2060joiner",
    "\ufeffbyte order mark",
    "left\u200eright\u200fmarks",
    "\u202egnitirw tfel-ot-thgir\u202c and back",
    "\u2066isolated\u2069 \u2067text\u2069 \u2068here\u2069",
    "\u202aembedding\u202c \u202boverride\u202d",
    "nul\u0000in the middle",
    "\u0000\u0000starts with nul",
    "bell\u0007 backspace\u0008 escape\u001b[31m red",
    "form\u000cfeed and vertical\u000btab",
    "delete\u007f and c1 \u0085 \u009f",
    "replacement \ufffd character",
    "\ufffd",
    "private \ue000\uf8ff use",
    "noncharacter \ufffe\uffff here",
    "no\u00a0break\u202fspace\u2007here",
    "ideographic\u3000space and ogham\u1680space",
    "line\u2028separator and paragraph\u2029separator",
    "tab\tseparated\tvalues",
    "windows\r\nlines\r\nof text",
    "old mac\rlines",
    "unix\n\n\nparagraphs\n",
    "   leading and trailing spaces   ",
    "many          spaces          inside",
    "tag \U000e0041\U000e0042 characters",
    "interlinear \ufff9annotation\ufffaanchor\ufffb",
]

COMBINING = [
    "caf\u00e9",
    "cafe\u0301",
    "e\u0301\u0302\u0303\u0304\u0305\u0306",
    "Z\u0351\u036b\u0343\u036a\u0302\u036b\u033d\u034f\u0334\u0319\u0324a\u0348\u0355l\u0349\u0356g\u0324\u0339o\u032f",
    "\u0301 starts with a mark",
    "n\u0303 \u00f1 N\u0303 \u00d1",
    "a\u030angstr\u00f6m \u212b \u00c5",
    "x\u20dd y\u20e3 z\u0338",
    "\u1e69 \u0073\u0323\u0307 \u0073\u0307\u0323",
    "I\u0307 \u0130 i \u0131",
]

LONG_WORDS = [
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
    "a" * 99,
    "a" * 100,
    "a" * 101,
    "before " + "x" * 120 + " after",
    "pneumono" * 15,
    "é" * 100,
    "é" * 101,
    "ab" * 50 + " " + "ab" * 51,
    "ACGTTGCAACGTTAGCCGTAACGT" * 10,
    "aGVsbG8gd29ybGQgdGhpcyBpcyBhIGxvbmcgYmFzZTY0IHN0cmluZyB0aGF0IG5vYm9keSB3aWxsIGV2ZXIgcmVhZCBieSBleWUgb3I/IG5vdA==",
]

NUMBERS = [
    "0",
    "42",
    "-1",
    "3.14159265358979323846",
    "1,234,567.89",
    "1e-12 6.02e23",
    "0xDEADBEEF 0b1010 0o755",
    "+44 20 7946 0958",
    "2024-02-29T23:59:60Z",
    "192.168.0.1 and ::1",
    "50% of 1/2 is ½ × ½ = ¼",
    "٣١٤ १२३ ๑๒๓ 一二三",
    "x² + y² ≤ z³ ∑∫√∞",
    "£5, €6, ¥700, ₹80 and $9.99",
    "123456789012345678901234567890123456789012345678901234567890",
    "v1.2.3-rc.4+build.567",
    "№ 5 Ⅷ ⅷ ① ㊿",
]

CODE = [
    "fn main() { println!(\"{}\", 1 + 1); }",
    "for (int i = 0; i < n; ++i) { sum += a[i] * b[i]; }",
    "def mean(xs):\n    return sum(xs) / len(xs)\n",
    "SELECT id, name FROM users WHERE age >= 18 ORDER BY name LIMIT 10;",
    "#include <stdio.h>\nint main(void){return 0;}",
    "let f = |x: &str| -> usize { x.len() };",
    "git commit -am 'fix: off-by-one in the tokenizer' && git push",
    "std::vector<std::unique_ptr<Node>> nodes;",
    "https://example.org/path/to/page?query=tea+light&lang=en#section-2",
    "http://user:secret@localhost:8080/%7Euser/%E2%9C%93",
    "Write to someone.else+tag@example.co.uk or see www.example.com.",
    "s3://bucket/key/with spaces/file.txt",
    "C:\\Program Files\\Candle\\candle.exe /q",
    "/usr/local/lib/libcandle.so.1.2",
    "{\"id\": 7, \"tags\": [\"a\", \"b\"], \"nested\": {\"ok\": true, \"none\": null}}",
    "[[1, 2], [3, 4], []]",
    "<p class=\"note\">Tea &amp; <b>biscuits</b></p>",
    "<!DOCTYPE html><html><head><title>&#x1F56F;</title></head><body/></html>",
    "<script>alert('x')</script>",
    "| name | value |\n|------|-------|\n| a    | 1     |",
    "# Heading\n\n- item *one*\n- item **two**\n\n```sh\nls -la\n```",
    "$E = mc^2$ and \\frac{a}{b}",
    "^(?:[a-z0-9_]+\\.)*[a-z]{2,}$",
    "snake_case camelCase PascalCase kebab-case SCREAMING_SNAKE_CASE",
    "f47ac10b-58cc-4372-a567-0e02b2c3d479",
    "key=value; other='quoted \\'text\\''",
    "%s %d %05.2f {} {0} ${HOME} %PATH%",
]

PUNCTUATION = [
    ".",
    "...",
    "…",
    "?!?!?!",
    "!" * 40,
    "-" * 60,
    "=====----=====",
    "«guillemets» „quotes“ ‘single’ “double” ‹angle›",
    "a-b–c—d―e",
    "(((((nested)))))",
    "~`!@#$%^&*()_-+={}[]|\\:;\"'<>,.?/",
    "。、！？「」『』【】・",
    "¡hola! ¿qué?",
    "* * *",
    "' ' '",
    "_ __ ___",
]

BLANK = [
    " ",
    "     ",
    "\t",
    "\t\t \t",
    "\n",
    "\r\n\r\n",
    "\u00a0",
    "\u3000",
    "\u200b",
    "\u200b\u200c\u200d\u2060\ufeff",
    "\u0000",
    "\u00ad",
    "\u2028",
    "\u202e\u202c",
]

SHORT = ["a", "A", "b", "z", "é", "ß", "я", "あ", "中", "ก", "א", "½", "I", "ok", "No", "the"]

# special tokens in plain text
SPECIAL = [
    "[CLS]",
    "[SEP]",
    "before [SEP] after",
    "[MASK] is the capital of France.",
    "[UNK] [PAD] [unused1]",
    "[cls] lower case is plain text",
    "[ CLS ] and [CLS",
    "##ing ##s token pieces",
]

DUPLICATES = [ENGLISH[0], ENGLISH[0], ENGLISH[7], "a", "🔥", " ", CODE[0], LONG_WORDS[4]]

GROUPS = [ENGLISH, LATIN, SCRIPTS, EMOJI, INVISIBLE, COMBINING, LONG_WORDS, NUMBERS, CODE, PUNCTUATION, BLANK, SHORT, SPECIAL, DUPLICATES]

# each word is one token, so a text of n words has n + 2 tokens
WORDS = """tea light candle river stone window garden winter morning table paper letter music silver
orange mountain bread salt water fire wind cloud summer bridge street market doctor teacher farmer
sailor engine wheel paint glass metal wood leather cotton sugar coffee forest island harbor valley
castle tower village city road ship train plane horse sheep bird fish snake spider""".split()

# around the tile sizes of the kernels, and the maximum number of tokens
LENGTHS = [3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 16, 17, 24, 31, 32, 33, 47, 48, 49, 63, 64, 65, 95, 96, 97, 127, 128, 129, 160, 191, 192, 193, 224, 254, 255, 256]
TOO_LONG = [257, 258, 300, 511, 512, 513, 1000]


def text_of_length(tokens, start):
    """A text of exactly this many tokens, [CLS] and [SEP] among them."""
    return " ".join(WORDS[(start + 7 * i) % len(WORDS)] for i in range(tokens - 2))


def all_texts():
    plain = [text for group in GROUPS for text in group]
    return plain + [text_of_length(tokens, start) for start, tokens in enumerate(LENGTHS + TOO_LONG)]
