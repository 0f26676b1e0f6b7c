"""What stands on the scoreboard: recipes, their bars, and what others have published."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """What a measure of a recipe is to reach.

    Attributes:
        measure: its name in ``evaluation.json`` without "test ", or the beginning of it.
        bar: the least value, or the largest where less is better; None: none was promised.
        beside: a baseline that ours must be better than, by the beginning of its name; empty: the
            best of them is shown, and ours must be better than it.
        margin: by how much.
        outside: the baseline must lie outside of the 95 % interval of ours.
        who: whose figure is ours, by the beginning of its name, where the recipe gives several.
    """

    measure: str
    bar: float | None = None
    beside: str = ""
    margin: float = 0.0
    outside: bool = False
    who: str = "ours"


@dataclass(frozen=True)
class Entry:
    """A recipe, run from random weights.

    Attributes:
        recipe: by its name.
        data: in words.
        goals: in the order in which they are shown.
        minutes: of training that were allowed on four cores; None: none were said.
        changed: values of the recipe that are set otherwise, as on the command line.
        published: what others had from random weights, and where it is written.
        small: minutes on one core; also run when it is to be quick.
    """

    recipe: str
    data: str
    goals: tuple[Goal, ...]
    minutes: float | None = None
    changed: tuple[str, ...] = ()
    published: str = ""
    small: bool = False


ACCURACY = Goal("accuracy")
CHRF = (Goal("chrF"), Goal("BLEU"))
ENTRIES = {
    "mlp-digits": Entry("mlp-digits", "scikit-learn's digits", (ACCURACY,), small=True),
    "mlp-mnist": Entry(
        "mlp-mnist",
        "MNIST, its own test images",
        (Goal("accuracy", 0.97),),
        published="0.9695 of 784-300-100-10 (LeCun et al. 1998, figure 9)",
        small=True,
    ),
    "mlp-mnist-tuned": Entry(
        "mlp-mnist-tuned",
        "MNIST, its own test images",
        (Goal("accuracy", 0.98),),
        published="0.9695 of 784-300-100-10 (LeCun et al. 1998, figure 9)",
        small=True,
    ),
    "mnist-cnn": Entry(
        "mnist-cnn",
        "MNIST, its own test images",
        (Goal("accuracy", 0.994),),
        minutes=3,
        published="0.9905 of LeNet-5 (LeCun et al. 1998, figure 9)",
    ),
    "rnn-frames": Entry("rnn-frames", "sequences made by the recipe", (ACCURACY,), small=True),
    "sentiment-imdb": Entry(
        "sentiment-imdb",
        "IMDb, reviews of its train half that were held out",
        (Goal("accuracy", 0.885),),
        minutes=8,
        published="0.865 of an LSTM, on the test half (Dai and Le 2015, arXiv:1511.01432)",
    ),
    "sentiment-chnsenticorp": Entry(
        "sentiment-chnsenticorp", "ChnSentiCorp, reviews held out", (Goal("accuracy", 0.86),)
    ),
    "slots-snips": Entry(
        "slots-snips",
        "SNIPS, its own 700",
        (Goal("span F1", 0.88), Goal("label accuracy", 0.97)),
        published="slot F1 0.888, intents 0.970 (Goo et al. 2018, slot-gated)",
    ),
    "kinds-snips": Entry(
        "kinds-snips",
        "SNIPS, its own 700; which kinds of slots",
        (Goal("F1 of labels"), Goal("all labels right")),
    ),
    "pairs-snips": Entry(
        "pairs-snips", "SNIPS, pairs of its own 700; the same intent or not", (ACCURACY,)
    ),
    "translation-multi30k": Entry(
        "translation-multi30k",
        "Multi30k, German to English, test_2016_flickr",
        (Goal("BLEU", 33.0),),
        minutes=20,
    ),
    "translation-multi30k-fr": Entry(
        "translation-multi30k",
        "Multi30k, English to French, test_2016_flickr",
        (Goal("BLEU", 45.0),),
        minutes=20,
        changed=("data.columns={source: en, target: fr}",),
        published="61.80, of tokens (Wu et al. 2021, arXiv:2105.14462, Transformer-Tiny)",
    ),
    "translation-tatoeba": Entry(
        "translation-tatoeba", "Tatoeba, English to Chinese, pairs held out", CHRF
    ),
    "translation-tatoeba-en": Entry(
        "translation-tatoeba",
        "Tatoeba, Chinese to English, pairs held out",
        CHRF,
        changed=("data.columns={source: zh, target: en}", "ask=null"),
    ),
    "translation-classical": Entry(
        "translation-classical", "classical into modern Chinese, chapters held out", CHRF
    ),
    "summary-scitldr-written": Entry(
        "summary-scitldr-written",
        "SciTLDR-A, its own test abstracts, written anew",
        tuple(Goal(f"ROUGE-{n}") for n in ("1", "2", "L")),
    ),
    "summary-scitldr": Entry(
        "summary-scitldr",
        "SciTLDR-A, its own test abstracts",
        tuple(
            Goal(f"ROUGE-{n}", beside=who, outside=True)
            for n in ("1", "2", "L")
            for who in ("first sentence", "at random")
        ),
    ),
    "qa-xquad": Entry(
        "qa-xquad",
        "XQuAD, passages held out",
        (Goal("answer F1", beside="sliding window", margin=0.10), Goal("exact match")),
    ),
    "qa-cmrc": Entry(
        "qa-cmrc",
        "CMRC 2018, its development file, passages held out",
        (Goal("answer F1", beside="sliding window", margin=0.10), Goal("exact match")),
    ),
    "digits-spoken": Entry(
        "digits-spoken", "FSDD, its own test takes", (Goal("accuracy", 0.99),), minutes=5
    ),
    "speech-digits": Entry(
        "speech-digits",
        "FSDD, strings of digits joined from test takes",
        (Goal("word error rate", 0.04),),
        minutes=5,
    ),
    "speech-kathleen": Entry(
        "speech-kathleen",
        "Kathleen, 40 sentences held out",
        (Goal("character error rate", 0.25), Goal("word error rate")),
    ),
    "speech-kathleen-aloud": Entry(
        "speech-kathleen-aloud",
        "Kathleen, 40 sentences held out; 6,000 of a synthesiser beside the train part",
        (Goal("character error rate", 0.25), Goal("word error rate")),
    ),
    "vocoder-kathleen": Entry(
        "vocoder-kathleen",
        "Kathleen, sentences held out",
        (Goal("mel-cepstral distortion", beside="Griffin-Lim"), Goal("real-time factor", 1.0)),
    ),
    "synthesis-kathleen": Entry(
        "synthesis-kathleen",
        "Kathleen, sentences held out",
        (Goal("mel-cepstral distortion"), Goal("real-time factor", 1.0)),
    ),
    "coffee-orders": Entry(
        "coffee-orders",
        "Picovoice's coffee orders, a third held out; one intent alone",
        (Goal("slot F1"), Goal("requests understood")),
    ),
    "chess-moves": Entry(
        "chess-moves",
        "games of Anand, Carlsen and Anderssen, a year held out",
        (Goal("move match", 0.30), Goal("move among three", 0.55)),
        minutes=30,
    ),
    "othello-moves": Entry(
        "othello-moves",
        "WTHOR, years held out",
        (Goal("move match", 0.50), Goal("move among three")),
        minutes=30,
    ),
    "cifar10-cnn": Entry(
        "cifar10-cnn",
        "CIFAR-10, 5,000 of the train images, JPEG",
        (Goal("accuracy", 0.90, who="ours, mean of"),),
        minutes=12,
        published="0.94 in 3.29 s of an A100, the test images (Jordan 2024, arXiv:2404.00498)",
    ),
    "flowers12": Entry("flowers12", "twelve kinds of flowers", (ACCURACY,)),
    "detection-bccd": Entry(
        "detection-bccd", "BCCD, its own test list", (Goal("mAP@0.5", 0.80),), minutes=20
    ),
    "detection-platelets": Entry(
        "detection-bccd",
        "BCCD, its own test list, its rarest class alone",
        (Goal("mAP@0.5", 0.50),),
        minutes=10,
        changed=("train.options.classes=[Platelets]", "budget=9m"),
    ),
    "digits-generation": Entry(
        "digits-generation",
        "MNIST, 1,000 digits drawn",
        (Goal("images recognised as their class", 0.97),),
        minutes=12,
    ),
    "cartpole-ppo": Entry("cartpole-ppo", "CartPole-v1", (Goal("mean return", 475.0),)),
    "dpo-harmless": Entry(
        "dpo-harmless", "hh-rlhf harmless, pairs held out", (Goal("preference accuracy", 0.60),)
    ),
    "grpo-arithmetic": Entry(
        "grpo-arithmetic", "sums made by the recipe", (Goal("solve rate", 0.80),)
    ),
    "quickstart": Entry(
        "quickstart", "Python's own library", (Goal("test bits per byte"), Goal("token F1"))
    ),
}
