from gateway.bench.workloads.nano import MAX_TOKEN_ID, OUTPUT_TOKENS, PROMPT_TOKENS, Nano


def test_it_is_nano_vllms_workload_to_the_token() -> None:
    questions = [talk.questions[0] for talk in Nano().conversations(0)]

    assert len(questions) == 256
    assert sum(question.max_tokens for question in questions) == OUTPUT_TOKENS == 133_966
    assert sum(len(question.token_ids) for question in questions) == PROMPT_TOKENS == 142_827
    assert all(question.ignore_eos for question in questions)
    assert {len(talk.questions) for talk in Nano().conversations(0)} == {1}


def test_another_place_has_the_same_lengths_and_no_common_prompt() -> None:
    first, second = Nano().conversations(0), Nano().conversations(1)

    for one, other in zip(first, second, strict=True):
        assert len(one.questions[0].token_ids) == len(other.questions[0].token_ids)
        assert one.questions[0].max_tokens == other.questions[0].max_tokens
        assert one.questions[0].token_ids[0] != other.questions[0].token_ids[0]


def test_ids_fit_a_small_vocabulary_and_no_length_changes() -> None:
    ids = [talk.questions[0].token_ids for talk in Nano(vocab_size=50).conversations(0)]

    assert {token for prompt in ids for token in prompt} == set(range(50))
    assert sum(map(len, ids)) == PROMPT_TOKENS
    whole = [talk.questions[0].token_ids for talk in Nano().conversations(0)]
    assert max(token for prompt in whole for token in prompt) == MAX_TOKEN_ID
