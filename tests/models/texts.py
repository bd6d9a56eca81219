"""What the tokenizers of tiny models are trained on."""

TEXTS = (
    "What color is the banana?",
    "The banana is yellow.",
    "USER: ASSISTANT: Yes No A B C 1 2 3",
    "the cat, the dog",
)
