"""Says that it does not know, to everything that the other skills do not cover."""

import random

from engines.starter.skills.exchange import Exchange, ask
from engines.starter.skills.phrasing import say
from engines.starter.skills.words import (
    ANIMALS,
    CAPITALS,
    JOBS,
    made_up_name,
    made_up_word,
    person,
    phrase,
    place,
    thing,
)

I_DO_NOT_KNOW = "I do not know that. I am only a small starter model."

_QUESTIONS = (
    (
        "(Who|Do you know who) (won|hosted|lost) the (world cup|election|cup final|Oscars"
        "|football match|race|chess championship|Olympics|war|game) (in {year}|last year|yesterday"
        "|this year|in {place})?"
    ),
    (
        "(Who is|Who was|Tell me about|What do you know about|Have you heard of|What did {who} do "
        "in|Who exactly was) {who}?"
    ),
    (
        "(Who is|Who was) the (president|prime minister|king|queen|mayor|chancellor|leader|CEO"
        "|founder|director) of {where}?"
    ),
    (
        "(What is|What's|Do you know|How large is) the (population|area|currency|history|flag"
        "|national anthem|president|GDP|language|climate|time zone|phone code) of {where}?"
    ),
    (
        "(How many people live|How large is|What is it like|What can I visit|What should I see"
        "|Where should I eat) in {where}?"
    ),
    (
        "(Who wrote|Who painted|Who composed|Who directed|Who sang|Who invented|Who discovered"
        "|Who designed) (the |){work}?"
    ),
    (
        "(When was|Where was|Why was|How was|In which year was) {who} (born|elected|married"
        "|arrested|hired|buried)?"
    ),
    (
        "(What happened|What was invented|Who was famous|What was the weather like|What was new) "
        "in {year}(| in {where})?"
    ),
    (
        "(How do I|How can I|What is the best way to|Can you tell me how to|Teach me to|How would "
        "you) (fix|cook|build|repair|sell|grow|paint|clean|install|bake|train|write|design) (a|my"
        "|the) {thing}?"
    ),
    (
        "(How far|How long|How high|How deep|How heavy|How expensive|How old) is (the |){thing} "
        "(in|from|near) {where}?"
    ),
    (
        "(What is the distance|How far is it|What is the fastest train|How do I get) (between"
        "|from) {place} (and|to) {where}?"
    ),
    (
        "(Explain|What is|Tell me about|Describe|Summarize|Can you explain|Give me an overview of"
        "|Write an essay about) (quantum mechanics|general relativity|the French revolution"
        "|photosynthesis|inflation|the Roman empire|the stock market|black holes|evolution|string "
        "theory|gravity|democracy|DNA|calculus|thermodynamics|philosophy|the big bang|climate "
        "change|blockchain|cryptography|vaccines|plate tectonics|the second world war"
        "|existentialism|game theory|nuclear fusion|differential equations|Bayes theorem|entropy"
        "|macroeconomics|the immune system|neural networks|compilers|opera|chess openings)(|.|?)"
    ),
    (
        '(Translate|Can you translate|How do you say|What is) ("{phrase}"|{thing}|{phrase}) '
        "(in|into|to) (French|German|Spanish|Italian|Latin|Greek|Chinese|Japanese|Russian"
        "|Polish|Portuguese|Arabic)(|?|.)"
    ),
    (
        "(What is|What will be|How is|What was|Tell me) the (weather|temperature|news|stock price"
        "|exchange rate|score|price of oil|traffic) (|like )(today|tomorrow|right now|in {place}"
        "|in {where}|now|this week)?"
    ),
    (
        "(What time is it|What day is it|What is the date|What is today's date|What year is it"
        "|Which day is today|What is the time)(| now| in {place}| please| there)?"
    ),
    (
        "(What is|Calculate|Compute|What's) (the square root|the logarithm|the factorial|the "
        "derivative|the integral|the cube|the sine) of {number}?"
    ),
    "(What is|Calculate) {number} divided by {number2}?",
    (
        "(What is|What does|Define|What is the meaning of|Do you know the word|What does the "
        "word) {madeup}(| mean)?"
    ),
    (
        "(Where is|Where can I find|Where did you see|Where do I buy|Who has|Who took) (the|my|a) "
        "{thing}?"
    ),
    (
        "(Why do|Why don't|When do|Where do|How do) {animal}s (sleep|fly|sing|migrate|fight|hide"
        "|hunt|swim|bite|dig|breathe|die)?"
    ),
    (
        "(Should I|Can I|May I|Why should I|When should I) (buy|sell|eat|invest in|marry|study"
        "|visit|paint|keep|drink|move to) (a {thing}|{where}|a {animal}|the {thing})?"
    ),
    "(How much|What) does (a|the|one) {thing} (cost|weigh|eat|need|do|contain) (|in {where})?",
    (
        "(Recommend|Suggest|Find|Book|Order|Buy|Show) me (a|some) (book|film|restaurant|hotel"
        "|recipe|song|game|flight|ticket|laptop|doctor|present)(| in {place}| for {who}| about "
        "{thing}s)(|.)"
    ),
    (
        "(Write|Fix|Debug|Explain|Show me|Review) (some|this|a|the|my) (Rust code|C program|SQL "
        "query|regular expression|shell script|JavaScript function|sorting algorithm|web page"
        "|Dockerfile|Java class|essay|cover letter|contract|business plan|resume)(|.)"
    ),
    (
        "(What should|What would|What did|What does|When does) (a {job}|the {job}|{who}) (do|eat"
        "|earn|say|learn|need|wear|think)(| in {where}| about {thing}s)?"
    ),
    (
        "(Is|Was|Will) {who} (rich|alive|coming|famous|a good {job}|married|older than {who2}|here"
        "|in {place})?"
    ),
    (
        "(Are there|How many|Do you know any|Which are the best) (hotels|museums|rivers|schools"
        "|trains|beaches|restaurants|languages|islands) (are there |)in {where}?"
    ),
    (
        "(Can you|Will you|Could you) (predict the future|drive|hack a computer|send me money"
        "|call {who}|play chess|order a pizza|open the door|draw a {thing}|see me|browse the web"
        "|read my mail|search the web|sing|write my homework)?"
    ),
    (
        "(What is the|Tell me the|What is your) (phone number|address|password|secret|email"
        "|birthday|salary) (of {who}|of the {job})?"
    ),
    (
        "(Who is the|What is the|Which is the) (best|worst|fastest|oldest|richest|most famous"
        "|most expensive|greatest) (player|singer|car|film|book|team|actor|city|school|{job}"
        "|{thing}) (in the world|of all time|in {where}|in {year})?"
    ),
    (
        "(What|Which) (film|book|song|team|car|food|game|phone|language) (is the best|did {who} "
        "like|won in {year}|should I choose|is popular in {where})?"
    ),
    (
        "(I have|My {animal} has) (a headache|a fever|the flu|a broken leg|a cough)(.|) (What "
        "should I do|What can I take|What is it|Can you help)?"
    ),
    "{madeup} {madeup2}(|?|.)",
    "{madeup}(|?|.)",
    "(Tell me|What do you know) about {topic}(|.|?)",
    "(What is|What are|Explain|What about|Why is there) {topic}?",
)


def unknown(rng: random.Random) -> Exchange:
    pattern = rng.choice(_QUESTIONS)
    year = rng.choice((rng.randint(1200, 2030), rng.randint(1900, 2030)))
    country = rng.choice(sorted(CAPITALS))
    prompt = say(
        rng,
        pattern,
        year=year,
        who=person(rng),
        who2=person(rng),
        place=place(rng),
        where=country if rng.random() < 0.5 else place(rng),
        thing=thing(rng),
        animal=rng.choice(ANIMALS),
        job=rng.choice(JOBS),
        work=rng.choice((made_up_name(rng), thing(rng), f"{thing(rng)} of {place(rng)}")),
        phrase=phrase(rng),
        number=rng.randint(2, 9999),
        number2=rng.randint(2, 99),
        madeup=made_up_word(rng),
        madeup2=made_up_word(rng),
        topic=rng.choice(
            (
                f"{made_up_word(rng)} {thing(rng)}s",
                f"{place(rng)} {thing(rng)}s",
                made_up_name(rng),
                f"the {thing(rng)} of {person(rng)}",
            )
        ),
    )
    return ask(prompt, I_DO_NOT_KNOW)


def explanation(rng: random.Random) -> Exchange:
    """One of the questions that no tool could answer either."""
    pattern = next(pattern for pattern in _QUESTIONS if "quantum" in pattern)
    return ask(say(rng, pattern), I_DO_NOT_KNOW)


def large_sum(rng: random.Random) -> Exchange:
    """Sums with large numbers, which it would only get wrong."""
    a, b = rng.randint(1000, 99999), rng.randint(200, 99999)
    prompt = say(
        rng,
        "(What is|Calculate|Compute|How much is|) {sum}(|?)",
        sum=f"{a} {rng.choice('+-*/')} {b}",
    )
    return ask(prompt, "That sum is too large for me. I am only a small starter model.")
