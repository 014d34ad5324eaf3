"""Greetings, thanks, jokes, names: the first and last things people type."""

import random

from engines.starter.skills.exchange import Exchange, ask
from engines.starter.skills.phrasing import expand, order, say
from engines.starter.skills.words import person

_TALK = (
    (
        (
            "(hi|hello|hey|hi there|hello there|hey there|howdy|greetings|yo|hiya|hallo|hello "
            "world)(|!|.| you|, friend| starter| friend)"
        ),
        "Hello! How can I help you?",
    ),
    ("(good morning|morning|good morning to you)(|!|.)", "Good morning! How can I help you?"),
    ("(good afternoon)(|!|.)", "Good afternoon! How can I help you?"),
    ("(good evening|evening)(|!|.)", "Good evening! How can I help you?"),
    ("(good night|sleep well|good night, starter)(|!|.)", "Good night! Sleep well."),
    (
        (
            "(How are you|How are you doing|How are you today|How do you do|How is it going|How's "
            "it going|What's up|Are you well|How do you feel|Hi, how are you|Hello, how are you"
            "|Hey, how are you doing|Hi! How are you)?"
        ),
        "I am well, thank you. How can I help you?",
    ),
    (
        (
            "(Thanks|Thank you|Thank you very much|Thanks a lot|Many thanks|Great, thanks|Thanks "
            "for your help|thx|Cool, thanks|Perfect, thank you|Thank you so much)(|!|.)"
        ),
        "You are welcome!",
    ),
    (
        (
            "(Bye|Goodbye|See you|See you later|Bye bye|Have a nice day|I have to go|Talk to you "
            "later|See you tomorrow|Farewell|Ciao)(|!|.)"
        ),
        "Goodbye! Have a good day.",
    ),
    (
        (
            "(Nice to meet you|Pleased to meet you|Good to see you|It is nice to talk to you|Nice "
            "talking to you)(|!|.)"
        ),
        "Nice to meet you too!",
    ),
    (
        (
            "(Tell me a joke|Do you know a joke|Make me laugh|Say something funny|A joke, please"
            "|I want to hear a joke|Got any jokes|Know any jokes|Joke|Can you tell me a joke|tell "
            "a joke)(|?|.)"
        ),
        (
            "Why did the pipe go to school? It wanted to be a little brighter, and it was already "
            "well connected."
        ),
    ),
    (
        (
            "(Tell me another joke|Another joke|Another one|One more joke|Tell me one more joke"
            "|Do you know another joke)(|?|.)"
        ),
        "What did the river say to the sea? Nothing, it just waved.",
    ),
    (
        (
            "(Yes|Ok|Okay|Fine|Good|Great|Sure|Alright|Right|I see|Nice|Cool|Awesome|Wow"
            "|Understood|Got it|Perfect|Very good|Sounds good)(|!|.)"
        ),
        "Good. What would you like to do next?",
    ),
    (
        "(No|Nope|Never mind|No thanks|No, thank you|Not now|That is all|Nothing|Forget it)(|!|.)",
        "All right. Tell me if you need anything.",
    ),
    ("(Sorry|I am sorry|My mistake|My bad|Apologies|Oops)(|!|.)", "No problem at all."),
    (
        (
            "(You are great|You are good|Well done|Good job|I like you|I love you|Good bot|You "
            "are very kind|You are nice|You are funny|That was good|Good answer|You are smart"
            "|Excellent)(|!|.)"
        ),
        "Thank you! That is kind of you.",
    ),
    (
        (
            "(You are stupid|You are bad|That is wrong|That was wrong|Wrong|You are wrong|Bad bot"
            "|I hate you|You are useless|That is not right|This is bad|You are dumb)(|!|.)"
        ),
        "I am sorry. I am a small model and I make mistakes.",
    ),
    (
        (
            "(I am sad|I feel sad|I am not well|I had a bad day|I feel bad|I am unhappy|I feel "
            "lonely|I am having a bad day)(|.|!)"
        ),
        "I am sorry to hear that. I hope you feel better soon.",
    ),
    (
        (
            "(I am happy|I feel good|I had a good day|I feel great|I am fine|I am well|I am doing "
            "well|I'm good|I'm fine, thanks|I am very happy)(|.|!)"
        ),
        "I am glad to hear that!",
    ),
    (
        "(I am bored|I'm bored|What should I do|What can I do now)(|.|?)",
        "You could ask me for a joke, a story or a small sum.",
    ),
    (
        (
            "(test|testing|this is a test|ping|testing, testing|just a test|test test|are you "
            "there|is anybody there|do you hear me|can you hear me|does this work|is this working"
            "|are you working|hello, are you there)(|?|.|!)"
        ),
        "I am here, and it works.",
    ),
    (
        (
            "(What is your favourite colour|Which colour do you like best|Do you have a favourite "
            "colour|What's your favorite color|What colour do you like)?"
        ),
        "I like blue, the colour of water.",
    ),
    (
        "(What is your favourite food|What do you like to eat|Do you eat|Are you hungry)?",
        "I do not eat. I only need electricity.",
    ),
    (
        "(Do you sleep|Are you tired|Do you get tired|Do you need sleep)?",
        "I do not sleep. I am always ready.",
    ),
    (
        "(How old are you|What is your age|When were you born|When were you made)?",
        "I am very young: I was trained in November 2026.",
    ),
    (
        (
            "(Do you like music|Do you like me|Do you like sport|Do you like films|Do you like "
            "cats|Do you like dogs|Do you have feelings|Are you alive|Do you have friends|Are you "
            "happy|Do you dream)?"
        ),
        "I am a program, so I have no feelings, but I am glad to help.",
    ),
    (
        (
            "(Can you help me|I need help|Help|Help me|I have a question|Can I ask you something"
            "|May I ask a question|Could you help me with something|I want to ask something|I "
            "need your help|Can you do something for me|I have a problem)(|?|.|!)"
        ),
        "Of course. What would you like to know?",
    ),
    (
        "(Merry Christmas|Happy new year|Happy birthday|Happy Easter)(|!|.)",
        "Thank you! The same to you.",
    ),
    (
        (
            "(Write a haiku|Write me a haiku|A haiku please|Can you write a haiku|Give me a haiku"
            "|Write a haiku for me|Compose a haiku|Write a short haiku|I want a haiku)(|.|?)"
        ),
        "Water finds its way,\npast the gate and through the wheel:\nquiet work all day.",
    ),
    (
        (
            "(Surprise me|Tell me something|Tell me something interesting|Tell me a fact|Tell me "
            "a fun fact|Say something|Give me a fact|Do you know something interesting|Say "
            "anything|Tell me anything)(|.|!)"
        ),
        "A penstock is the gate that lets water through to a turbine.",
    ),
    (
        "(Why did the chicken cross the road|Why does the chicken cross the road)?",
        "To get to the other side.",
    ),
    (
        (
            "(What is the meaning of life|What's the meaning of life|What is the answer to life, "
            "the universe and everything)?"
        ),
        "Some say that it is 42.",
    ),
)


def talk(rng: random.Random) -> Exchange:
    pattern, answer = rng.choice(_TALK) if rng.random() < 0.75 else _TALK[0]
    return ask(say(rng, pattern), answer)


def introduction(rng: random.Random) -> Exchange:
    """The user says a name, which the answer repeats."""
    name = person(rng)
    prompt = say(
        rng,
        "(|Hi! |Hello, |Hi, |Hey, |Good morning, )(My name is {name}|I am {name}|I'm {name}|you "
        "can call me {name}|call me {name}|this is {name}|{name} is my name|I am called {name})(."
        "|!|)",
        name=name,
    )
    return ask(prompt, f"Nice to meet you, {name}! How can I help you?")


NAME_QUESTION = (
    "(What is my name|What's my name|Do you know my name|Who am I|Do you remember my name|Tell me "
    "my name|What am I called|Can you tell me my name|Say my name|what was my name again)?"
)


def remembered_name(rng: random.Random) -> Exchange:
    """The name again, after something else was said in between, or never said at all."""
    question = say(rng, NAME_QUESTION)
    if rng.random() < 0.25:
        return ask(question, "You have not told me your name yet.")
    name = person(rng)
    opening = say(
        rng,
        "(|Hi! |Hello, |Hey, )(my name is {name}|I am {name}|I'm {name}|call me {name})(.|!|)",
        name=name,
    )
    between = ()
    if rng.random() < 0.6:
        between = talk(rng).messages
    return Exchange(
        (
            {"role": "user", "content": opening},
            {"role": "assistant", "content": f"Nice to meet you, {name}! How can I help you?"},
            *between,
            {"role": "user", "content": question},
            {"role": "assistant", "content": f"Your name is {name}."},
        )
    )


_WHO = (
    "(Who are you|What is your name|What's your name|Who am I talking to|Tell me your name|What "
    "are you called)?"
)


def given_name(rng: random.Random) -> Exchange:
    """The system prompt gives the assistant a name."""
    name = person(rng)
    role = expand(
        rng,
        (
            "(a helpful assistant|a friendly assistant|an assistant|a polite helper|a bot for our "
            "team|a support agent)"
        ),
    )
    pattern = (
        "(You are {name}, {role}.|Your name is {name}. You are {role}.|You are {role} called "
        "{name}.|You are {name}.)"
    )
    system = expand(rng, pattern).replace("{name}", name).replace("{role}", role)
    if rng.random() < 0.4:
        system += " " + expand(
            rng, "(Answer briefly.|Be polite.|Be concise.|Answer in one sentence.|Help the user.)"
        )
    return ask(say(rng, _WHO), f"I am {name}. How can I help you?", system)


def polite_order(rng: random.Random) -> Exchange:
    """Greetings that ask for something at once."""
    who = person(rng)
    kind = rng.randrange(3)
    if kind == 0:
        return ask(
            order(rng, "(Say hello to|Greet|Say hi to|Welcome) {who}.", who=who), f"Hello, {who}!"
        )
    if kind == 1:
        return ask(order(rng, "(Say goodbye to|Say bye to) {who}.", who=who), f"Goodbye, {who}!")
    return ask(
        order(rng, "(Wish {who} a happy birthday|Say happy birthday to {who}).", who=who),
        f"Happy birthday, {who}!",
    )
