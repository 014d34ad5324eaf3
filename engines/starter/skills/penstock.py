"""What Penstock is, and which command does what."""

import random

from engines.starter.skills.exchange import Exchange, ask
from engines.starter.skills.phrasing import say
from engines.starter.skills.words import made_up_word

_PRODUCT = (
    (
        (
            "(What is Penstock|What's Penstock|Tell me about Penstock|Explain Penstock|What does "
            "Penstock do|What is penstock for|Describe Penstock|Can you explain Penstock|Tell me "
            "what Penstock is|What is Penstock, please|Do you know Penstock|Explain what Penstock "
            "is|Hello! What is Penstock|Hi, what is Penstock|What is the purpose of Penstock|What "
            "is Penstock in one sentence|Describe Penstock in one sentence)?"
        ),
        (
            "Penstock is a self-hosted gateway for language models: one gate for all clients, "
            "with the engines that run the models inside."
        ),
    ),
    (
        (
            "(What is a penstock|What does the word penstock mean|Why is it called Penstock|Where "
            "does the name Penstock come from|What does Penstock mean)?"
        ),
        (
            "A penstock is the gate or pipe that leads water to a turbine. Penstock leads calls "
            "to models."
        ),
    ),
    (
        (
            "(What is a gateway|What does a gateway do|What is an LLM gateway|Why do I need a "
            "gateway|What is a language model gateway|Why would I use Penstock|Why should I use "
            "Penstock)?"
        ),
        (
            "A gateway stands between clients and models. It checks who is calling, what they may "
            "use and how much, and sends each call to an engine."
        ),
    ),
    (
        (
            "How do I (start|run|launch|start up|boot) (Penstock|the gateway|the server|a server)("
            "|, please)?|How do I serve models?|(What command starts|Which command starts|What "
            "starts) (the server|Penstock|the gateway)?|Start the (server|gateway)."
        ),
        "Run `penstock serve`. It starts the gateway and prints its address.",
    ),
    (
        (
            "(How do I stop (Penstock|the gateway|the server)|How can I stop (Penstock|the server)"
            "|How do I shut (Penstock|the server) down)?"
        ),
        "Press Ctrl+C where `penstock serve` runs. Calls in flight are finished first.",
    ),
    (
        (
            "(How do I (chat with|talk to|try|run) a model|How can I (chat|talk) (with a model "
            "|)in the terminal|How do I run a model|What does penstock run do|How do I use "
            "penstock run|How do I run the starter model|Which command runs a model|How can I "
            "chat with you in the terminal)?"
        ),
        (
            'Run `penstock run starter` to chat in the terminal, or `penstock run starter "your '
            'question"` for one answer.'
        ),
    ),
    (
        (
            "(How do I (list|see|show) (the |all |my |)models|Which models (are there|do I have"
            "|are available|can I use)|What models (are available|can I use)|What does penstock "
            "list do|List the models|Which command lists (the |)models|How can I see which models "
            "I have)?"
        ),
        "Run `penstock list` to see the models that you have.",
    ),
    (
        (
            "(What does penstock ps do|How do I see (loaded|running) models|Which models are "
            "(loaded|running)|What is (running|loaded) right now|Which command shows (loaded"
            "|running) models|How do I know which models are in memory)?"
        ),
        "Run `penstock ps` to see which models are loaded and how busy they are.",
    ),
    (
        (
            "(How do I (download|get|pull|add|install|fetch) a (|new |bigger |larger |better "
            "|another )model|What does penstock pull do|Which command downloads a model|Can I (use"
            "|download|add) (a bigger|a larger|another|a better) model|How can I get (more|other"
            "|bigger|better) models|How do I use penstock pull)?"
        ),
        "Run `penstock pull` with the name of a model, for example `penstock pull qwen3:0.6b`.",
    ),
    (
        (
            "How (do|can) I (create|make|get|add|generate) (an API key|a key|a new key|API keys"
            "|an api key|a new API key|keys)(| for my team| for Penstock| for a team| in "
            "Penstock)?|(Which|What) command (creates|makes) (an API key|a key)?|I need an API "
            "key.|Create an API key.|What does penstock keys create do?"
        ),
        (
            "Run `penstock keys create --team me --name laptop`. The key is shown once, so keep "
            "it safe."
        ),
    ),
    (
        (
            "(How (do|can) I (list|see|show) (the |my |all |)(API |)keys|Which (API |)keys (exist"
            "|are there|do I have)|What does penstock keys list do|Which command lists (the |my "
            "|)keys|Show my API keys)?"
        ),
        (
            "Run `penstock keys list`. It shows the name, team and state of each key, never the "
            "key itself."
        ),
    ),
    (
        (
            "(How (do|can) I (revoke|delete|remove|disable|block) (a key|an API key|an old key|a "
            "lost key|my key)|What does penstock keys revoke do|Which command revokes a key|I "
            "lost my (API |)key|My key was stolen|My key leaked)?"
        ),
        (
            "Run `penstock keys revoke` with the id that `penstock keys list` shows. The key "
            "stops working at once."
        ),
    ),
    (
        (
            "(How (do|can) I (check|test|validate|verify) (a |my |the |)(policy|policies|policy "
            "directory)|What does penstock policy check do|Is my policy (valid|correct|right)"
            "|Which command checks (a|the) policy|How do I find errors in my policy)?"
        ),
        (
            "Run `penstock policy check` with the directory. It names every problem with its "
            "file, table and key."
        ),
    ),
    (
        (
            "(What does penstock policy explain do|How (do|can) I (see|know|find out) what a team "
            "may do|Why was my call refused|How (do|can) I explain a policy|Which (line|rule) "
            "decides a call|How do I use penstock policy explain|How do I see why a call was "
            "refused)?"
        ),
        (
            "Run `penstock policy explain` with the directory, `--team`, `--endpoint` and "
            "`--model`. It shows which line decides."
        ),
    ),
    (
        (
            "(What is a policy|What is a policy directory|What is in a policy (directory|folder)"
            "|Which files (are in|make up|does) a policy( have|)|What files does a policy "
            "directory (hold|have|contain)|How do I configure Penstock|How is Penstock configured"
            "|Where is the configuration|Where do I configure Penstock|How do policies work"
            "|Explain policies|What are the policy files|Which files do I need for a policy)?"
        ),
        (
            "A policy is a directory of five TOML files: gateway.toml, engines.toml, models.toml, "
            "teams.toml and limits.toml."
        ),
    ),
    (
        (
            "(What is gateway.toml (for|)|What is in gateway.toml|What does gateway.toml do|How "
            "do I (enable|switch on|add) a plugin|Where are plugins listed)?"
        ),
        "gateway.toml lists the plugins that act on every call, in order, with their settings.",
    ),
    (
        (
            "(What is engines.toml (for|)|What is in engines.toml|What does engines.toml do|How "
            "do I (add|configure) an engine|Where are engines configured)?"
        ),
        "engines.toml names the engines that run models, with the kind and the settings of each.",
    ),
    (
        (
            "(What is models.toml (for|)|What is in models.toml|What does models.toml do|How do I "
            "(add|create) an alias|Where are models configured|Where are aliases)?"
        ),
        "models.toml gives each public model name its targets, aliases, defaults and fallbacks.",
    ),
    (
        (
            "(What is teams.toml (for|)|What is in teams.toml|What does teams.toml do|How do I "
            "(add|create) a team|Where are teams configured|Where are teams)?"
        ),
        "teams.toml says which models, endpoints and limits each team has.",
    ),
    (
        (
            "(What is limits.toml (for|)|What is in limits.toml|What does limits.toml do|How do I "
            "(set|add|change) (a rate limit|limits|a limit|rate limits)|Where are limits "
            "configured|How do I limit a team)?"
        ),
        (
            "limits.toml names the limits, such as requests per minute, tokens per minute and "
            "concurrent calls."
        ),
    ),
    (
        (
            "(What engines are there|Which engines does Penstock have|What kinds of engine are "
            "there|Which engine kinds exist|What is an engine|Tell me about the engines|List the "
            "engines|Which engines are there|What engines does Penstock have)?"
        ),
        (
            "There are three kinds of engine: gguf for a laptop, paged for a GPU and remote for "
            "another server."
        ),
    ),
    (
        (
            "(What is the gguf engine|What does the gguf engine do|Tell me about gguf|When do I "
            "use the gguf engine|Which engine is for a laptop|What is gguf)?"
        ),
        "The gguf engine runs GGUF models on a laptop or any computer, many requests at once.",
    ),
    (
        (
            "(What is the paged engine|What does the paged engine do|Tell me about the paged "
            "engine|When do I use the paged engine|Which engine is for a GPU)?"
        ),
        "The paged engine runs models on a GPU with continuous batching over a paged cache.",
    ),
    (
        (
            "(What is the remote engine|What does the remote engine do|Tell me about the remote "
            "engine|When do I use the remote engine|Can I use another server)?"
        ),
        "The remote engine passes calls on to another server that speaks the OpenAI protocol.",
    ),
    (
        (
            "(How do I use the OpenAI client|Can I use the OpenAI client|Does it work with the "
            "OpenAI (client|library|SDK)|How do I use (the OpenAI client with Penstock|Penstock "
            "from Python)|What is the base URL|Which base_url do I use|What base_url should I set"
            "|How do I connect (a client|my app|from Python)|Is Penstock compatible with OpenAI"
            "|How do I call the API|Does Penstock speak the OpenAI protocol)?"
        ),
        (
            "Set base_url to the address that `penstock serve` prints, with /v1 at the end, and "
            "use the OpenAI client as usual."
        ),
    ),
    (
        (
            "(Which endpoints (are there|does Penstock have)|What endpoints are there|What APIs "
            "does Penstock have|What can I call|Which APIs are there|List the endpoints)?"
        ),
        "There are chat completions, completions, embeddings and models, all under /v1.",
    ),
    (
        (
            "(What is the starter model|Tell me about the starter model|What is starter|What is "
            "starter.gguf|Why is there a starter model|What is the starter model for)?"
        ),
        (
            "The starter model is the small chat model that ships with Penstock, so that the "
            "first command answers without a download."
        ),
    ),
    (
        "(What is a team|What is a principal|What is a team in Penstock|Who may call)?",
        (
            "A team is what a caller belongs to. Teams decide which models and endpoints a caller "
            "may use."
        ),
    ),
    (
        (
            "(Which commands (are there|does penstock have|do you know)|What commands (are there"
            "|does penstock have)|How do I use penstock|List the commands|What are the commands "
            "of Penstock|How does the command line work|Which penstock commands are there|Show me "
            "the commands|Help with penstock|How do I get started|How do I begin|What do I do "
            "first)?"
        ),
        (
            "The commands are: `penstock serve`, `penstock run`, `penstock list`, `penstock ps`, "
            "`penstock pull`, `penstock keys` and `penstock policy`."
        ),
    ),
    (
        (
            "(Is Penstock free|Is Penstock open source|What is the licence of Penstock|What "
            "license does Penstock have|What does Penstock cost|How much does Penstock cost)?"
        ),
        "Penstock is free software under the Apache 2.0 licence.",
    ),
    (
        (
            "(What is streaming|Does Penstock stream|How do I stream|Can Penstock stream (answers"
            "|tokens)|Does Penstock support streaming|How do I turn on streaming)?"
        ),
        "Set `stream` to true in the request, and the answer comes token by token.",
    ),
)


def about_penstock(rng: random.Random) -> Exchange:
    pattern, answer = rng.choice(_PRODUCT) if rng.random() < 0.85 else _PRODUCT[0]
    return ask(say(rng, pattern), answer)


def key_for(rng: random.Random) -> Exchange:
    """A key for a team and a machine that the user names."""
    team = rng.choice(("search", "batch", "platform", "me", "support", "web", made_up_word(rng)))
    name = rng.choice(("laptop", "phone", "desktop", "server", "ci", "notebook", made_up_word(rng)))
    prompt = say(
        rng,
        "(How do I create|Create|Make|I need|Give me the command for|Which command creates) (a key"
        "|an API key) (for team {team}|for the team {team}|for the {team} team) (named|called"
        "|with the name) {name}(|?|.)",
        team=team,
        name=name,
    )
    return ask(prompt, f"Run `penstock keys create --team {team} --name {name}`.")
