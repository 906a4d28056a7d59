"""The forms of small talk and requests, and questions outside the domain.

The forms under "test" stand in the test split alone.
"""

from .held_out import SPLITS
from .words import ADJECTIVES, THINGS, names_of

DEFAULT_NAME = "michi"
ROLES = tuple(
    """
baker cook doctor driver farmer guide helper librarian nurse painter pilot pirate poet robot sailor singer
teacher waiter wizard king queen gardener clown coach writer builder
""".split()
)

# (question forms, reply, accepted strings): what the reply has and the question has not
SMALLTALK = (
    (
        {
            "train": (
                "hello",
                "hi",
                "hey there",
                "hello there",
                "hi there",
                "good morning",
                "good evening",
                "hi michi",
                "hello michi",
                "hi how nice to hear you",
                "hello are you ready",
                "good day to you",
                "hello it is me again",
            ),
            "test": ("good afternoon", "hey michi hello"),
        },
        "hello how can i help you",
        ("help",),
    ),
    (
        {
            "train": (
                "how are you",
                "how are you today",
                "how are you doing",
                "are you okay",
                "how do you feel",
                "how is it going",
                "is everything okay with you",
                "how is your day",
                "are things going well",
                "do you feel good today",
            ),
            "test": ("how do you do today", "are you well"),
        },
        "i am fine thank you",
        ("fine",),
    ),
    (
        {
            "train": (
                "thank you",
                "thanks",
                "thank you very much",
                "thanks a lot",
                "great thank you",
                "many thanks",
                "thanks that was a great help",
                "thank you that is all",
                "oh thanks that is very kind",
                "thank you for your time",
            ),
            "test": ("thank you so much", "very good thanks"),
        },
        "you are welcome",
        ("welcome",),
    ),
    (
        {
            "train": (
                "goodbye",
                "bye",
                "bye bye",
                "see you later",
                "good night",
                "i have to go now",
                "goodbye michi",
                "i am leaving now bye",
                "that is all for today goodbye",
                "we will speak again tomorrow bye",
                "it is late this afternoon bye bye",
            ),
            "test": ("okay bye for now", "i must go goodbye"),
        },
        "goodbye and see you soon",
        ("soon",),
    ),
    (
        {
            "train": (
                "what can you do",
                "what do you know",
                "how can you help me",
                "what can i ask you",
                "what are you good at",
                "what do you do",
                "tell me what you can do",
                "what else do you know",
                "which things do you know about",
                "what may i talk to you about",
                "is there anything that you can do",
            ),
            "test": ("what can you help me with", "what things can you do"),
        },
        "i can count and answer questions",
        ("count", "questions"),
    ),
    (
        {
            "train": (
                "nice to meet you",
                "it is nice to meet you",
                "good to meet you",
                "pleased to meet you",
                "i am happy to meet you",
                "nice to talk to you",
                "a pleasure to meet you",
                "how lovely to meet you",
                "i am so pleased that we met",
                "it is good to speak with you",
            ),
            "test": ("very nice to meet you", "good to talk to you"),
        },
        "i am glad too",
        ("glad",),
    ),
    (
        {
            "train": (
                "can you hear me",
                "do you hear me",
                "are you there",
                "are you listening",
                "is anybody there",
                "can you understand me",
                "is this thing on",
                "can you still hear me",
                "does it work can you hear me",
                "hello can anybody hear me",
                "do you hear what i say",
            ),
            "test": ("do you understand me", "are you still there"),
        },
        "yes i can hear you well",
        ("yes",),
    ),
    (
        {
            "train": (
                "are you a person",
                "are you human",
                "are you a robot",
                "are you real",
                "what are you",
                "are you a machine",
                "am i talking to a machine",
                "are you a living thing",
                "is this a computer",
                "what sort of thing is speaking here",
                "are you made by people",
            ),
            "test": ("are you a real person", "what kind of thing are you"),
        },
        "i am a small speech model",
        ("model",),
    ),
)
ASK_NAME = {
    "train": (
        "what is your name",
        "what's your name",
        "who are you",
        "tell me your name",
        "what do i call you",
        "may i know your name",
        "do you have a name",
        "can you tell me your name",
        "what are you called",
        "what do people call you",
        "how should i call you",
        "i would like to know your name",
        "what was your name",
        "and your name is",
        "who am i talking to",
        "by what name are you called",
        "what name did they give you",
        "so who is speaking",
        "i still do not know your name",
        "which name is yours",
        "please tell me who you are",
    ),
    "test": ("how are you called", "say your name please"),
}
ASK_ROLE = {
    "train": (
        "what is your job",
        "what's your job",
        "what work do you do",
        "what is your work",
        "tell me your job",
        "which job do you have",
        "do you have a job",
        "what do you do for work",
        "what are you by profession",
        "do you work",
        "can you tell me your job",
        "what kind of work do you do",
        "i would like to know your job",
        "please tell me what you do",
        "which profession is yours",
        "how do you make your money",
        "what do they pay you for",
        "what are you working as",
        "what job did they give you",
    ),
    "test": ("what job is yours", "may i know your job"),
}
TELL_NAME = {
    "train": (
        "my name is {n}",
        "i am {n}",
        "hello i am {n}",
        "hi my name is {n}",
        "call me {n}",
        "you can call me {n}",
        "people call me {n}",
        "they call me {n}",
        "i'm {n}",
        "the name is {n}",
        "my friends call me {n}",
        "hey it is {n} here",
        "{n} is my name",
        "it is me {n}",
        "you are talking with {n}",
        "good evening my name is {n}",
        "everybody calls me {n}",
        "well i am {n} by the way",
    ),
    "test": ("this is {n} speaking", "good morning i am {n}"),
}
ASK_MY_NAME = {
    "train": (
        "what is my name",
        "what's my name",
        "who am i",
        "do you know my name",
        "tell me my name",
        "can you say my name",
        "what am i called",
        "how do you call me",
        "do you remember my name",
        "can you tell me who i am",
        "what did i say my name was",
        "please tell me my name",
        "could you say my name",
        "who are you talking to",
        "which name did i give you",
        "do you still know who i am",
        "tell me what i am called",
        "by what name do you know me",
        "is my name still with you",
    ),
    "test": ("how am i called", "what name do i have"),
}
REPEAT = {
    "train": (
        "repeat after me {s}",
        "say {s}",
        "please say {s}",
        "repeat {s}",
        "please repeat {s}",
        "can you say {s}",
        "say after me {s}",
        "could you repeat {s}",
        "would you say {s}",
        "repeat these words {s}",
        "i want you to say {s}",
        "say this {s}",
        "say it after me {s}",
    ),
    "test": ("now repeat {s}", "try to say {s}"),
}
SPELL = {
    "train": (
        "spell {s}",
        "please spell {s}",
        "can you spell {s}",
        "how do you spell {s}",
        "spell the word {s}",
        "how is {s} spelled",
        "could you spell {s}",
        "what are the letters of {s}",
        "how would you spell {s}",
        "please spell the word {s}",
        "can you tell me the spelling of {s}",
        "i need the spelling of {s}",
        "say the letters of {s}",
        # with words after it: else the letters are sought in the last ones
        "spell {s} please",
        "spell {s} out loud",
        "spell {s} once more",
        "can you spell {s} out",
        "would you spell {s} slowly",
        "could you spell the word {s} again",
        "how do you spell {s} correctly",
        "how is the word {s} written",
        "i do not know how {s} is written",
        "spell out {s} letter by letter",
        "the word {s} how is it spelled",
        "what are the letters of {s} one by one",
    ),
    "test": ("spell {s} for me", "tell me how to spell {s}"),
}
SLOWER = {
    "train": (
        "slower please",
        "please speak slower",
        "can you speak slower",
        "not so fast",
        "you are too fast",
        "speak slowly please",
        "a little slower please",
        "you speak a bit too fast",
        "that was too fast for me",
        "take your time please",
        "i can not follow you",
        "could you talk more slowly",
        "could you go slower",
    ),
    "test": ("a bit slower please", "please talk slower"),
}
LAUGH = {
    "train": (
        "please laugh",
        "can you laugh",
        "laugh please",
        "laugh for me",
        "i want to hear you laugh",
        "could you laugh",
        "let me hear you laugh",
        "go on and laugh",
        "show me how you laugh",
        "try to laugh a bit",
        "let us laugh together",
        "give us a big laugh please",
        "do laugh now",
    ),
    "test": ("give me a laugh", "please laugh for me now"),
}
SPELLABLE = tuple(dict.fromkeys(w for w in THINGS + ADJECTIVES if 2 < len(w) < 7))
SPELLABLE_NAMES = {split: tuple(w for w in names_of(split) if len(w) < 7) for split in SPLITS}


def _forms(text: str) -> tuple[str, ...]:
    return tuple(" ".join(form.split()) for form in text.split("|"))


# questions outside the domain; held-out ones ask in another way for other things
OUTSIDE = {
    "train": _forms("""
what is the weather in {c} | will it rain in {c} | will it rain tomorrow | is it cold in {c} |
who won the game last night | who won the race | who wrote the book about the {t} | how tall is {n}
| how tall is the {t} | how far is it to {c} | how far is {c} from {d} | how many people live in {c}
| what time is it | what time is it in {c} | what day is it today | what is the date today |
who is the king of {c} | who is the mayor of {c} | can you order a {t} | can you order {f} for me |
how do i cook {f} | how do i fix the {t} | how do i clean a {t} | how heavy is a {t} |
how heavy is the {t} | how old is the {t} | how long is the {t} | what did {n} say |
what did {n} buy | why is {n} so {a} | why is the {t} {a} | why did {n} leave | who made the {t} |
who lost the {t} | who stole the {t} | who is the {p} | where did the {p} go | what is the {p} doing
| does {n} like {f} | does {n} have a {t} | did {n} call me | can you call {n} | can you drive a {t}
| can you open the {t} | can you play the {t} | what is the best {t} | what is the name of the {p} |
how much money does {n} have | how many {f} are in the {t} | what is the meaning of {t} |
who invented the {t} | what is a {t} made of | how do you make a {t} | should i buy the {a} {t} |
what should i eat | what is the news today | play some music | turn on the {t} | turn off the {t} |
send a letter to {n} | what is on television tonight | how deep is the sea | how big is the world |
what is the fastest animal | who was the first man on the moon | where is the nearest {t} |
what is my favourite {t} | what is {n} thinking | what is the {t} called | which {t} is better |
is the {t} {a} | is {n} {a} | is {n} at home | how fast is a {t} | how {a} is the {t} |
what did the {p} say to {n} | tell me about {c} | tell me about the {t} |
tell me a story about a {t} | sing something | sing a song about {n} | what happened in {c} |
what happened last night | where can i repair a {t} | can you read this letter | read the book about {c} |
what is new in {c} | which country is the richest | has {n} found the {t} | is there any {f} left |
why is it so hot in {c} | how do i get home | give me some {f} | give the {t} to {n} |
which film did {n} see | when does the train to {c} go | can i walk through the {t} | are there things in the {t} |
is the {t} yours | is {n} still in {c}
"""),
    "test": _forms("""
will there be snow in {c} | who built the {t} | how wide is the {t} | how many {t} are there in {c}
| how do i repair a {t} | why does {n} want the {t} | who painted the {t} | can you find the {p} |
which song does {n} sing | how do i get to {c} | read me the news | who is the richest {p} |
why is the {p} in {c} | how hot is the sun | what happened to {n} | is there a {t} in {c}
"""),
}
