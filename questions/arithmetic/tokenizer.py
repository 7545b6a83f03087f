"""Trains the shipped model's tokenizer: byte-level BPE over the arithmetic world plus some LaTeX and English.

Invariant: any text encodes and decodes to itself (all 256 bytes are in the alphabet), every digit is one token, and the
same inputs give the same file.
"""

from __future__ import annotations

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from corewarding.questions.arithmetic.world import demonstrations
from corewarding.questions.settings import DEFAULT_SYSTEM_PROMPT

VOCAB_SIZE = 1024
PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

# ChatML; the newline that usually follows <|im_end|> is left out, which saves a token per message.
CHAT_TEMPLATE = (
    "{%- for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{%- endif %}"
)

# Pieces no merge crosses: chat headers, LaTeX commands, words with an apostrophe, single digits, symbols, white space.
PIECES = r"(?:system|user|assistant)\n| ?\\\p{L}+| ?\p{L}+(?:'\p{L}+)?|\p{N}| ?[^\s\p{L}\p{N}\\]+| ?\\|\s+(?!\S)|\s+"

GENERAL_TEXT = r"""
Let $x$ be a real number such that $x^2 + 2x + 1 = 0$. What is the value of $x$? Express your answer as a common fraction.
Find the number of positive integers $n$ with $1 \le n \le 100$ such that $\frac{n}{2}$ is an integer.
We have $\frac{1}{2} + \frac{1}{3} = \frac{5}{6}$, so the answer is $\boxed{\frac{5}{6}}$.
Compute $\sqrt{2} \cdot \sqrt{8}$. Simplify the expression $(a + b)^2 - (a - b)^2$ and give the result in terms of $a$ and $b$.
Let $f(x) = \sin x + \cos x$ and $g(x) = \log_2 x$. Determine all values of $\theta$ with $0 \le \theta < 2\pi$.
In triangle $\triangle ABC$, $\angle A = 90^\circ$, $AB = 3$ and $AC = 4$. What is the length of $BC$?
Therefore the sum of the roots is $-\frac{b}{a}$ and the product of the roots is $\frac{c}{a}$. Hence we get $\boxed{12}$.
\begin{align*} x + y &= 10 \\ x - y &= 4 \end{align*} Solve the system of equations for the ordered pair $(x, y)$.
Suppose that $p$ is a prime number. How many different ways are there to choose three of them if the order does not matter?
First, we note that the function is increasing. Then, since $k \geq 1$, it follows that $\sum_{k=1}^{n} k = \frac{n(n+1)}{2}$.
The probability that both balls are red is $\binom{4}{2} / \binom{10}{2} = \frac{6}{45} = \frac{2}{15}$.
\[ \left( \frac{3}{4} \right)^2 \times \overline{AB} \approx 0.5625 \quad \text{square units} \]
If the polynomial $P(x)$ has degree at most $3$, find the remainder when it is divided by $x^2 - 1$.
The area of a circle with radius $r$ is $\pi r^2$; the volume of a sphere is $\frac{4}{3} \pi r^3$.
Please reason step by step, and put your final answer within \boxed{}. Which of the following is equal to it?
def solve(values): return sum(value for value in values if value > 0)
"""


def corpus(num: int = 6000) -> list[str]:
    """The lines the merges are learned from: the world's questions and completions, the system message, other text."""
    world = [line for d in demonstrations(num=num, seed=0) for line in (d.question, " " + d.completion)]
    headers = [f"{role}\n" for role in ("system", "user", "assistant")]
    return world + [DEFAULT_SYSTEM_PROMPT, *headers, "The answer is 7."] * 200 + GENERAL_TEXT.split("\n") * 8


def train_tokenizer() -> Tokenizer:
    """The tokenizer, `VOCAB_SIZE` entries; the three special tokens have the ids 0, 1 and 2."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in (PAD, START, END)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


def tokenizer_config(model_max_length: int) -> dict[str, object]:
    """Contents of tokenizer_config.json."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": CHAT_TEMPLATE,
        "bos_token": None,
        "eos_token": END,
        "pad_token": PAD,
        "additional_special_tokens": [START, END],
        "model_max_length": model_max_length,
        "clean_up_tokenization_spaces": False,
        "add_prefix_space": False,
    }
