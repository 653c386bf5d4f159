"""The human similarity datasets known by name: where each is, whom to cite, and how far people agree.

WordSim-353 ships with the package, as its licence allows. The others are fetched from one collection of them all at one
commit, github.com/mfaruqui/eval-word-vectors (Faruqui & Dyer, "Community evaluation and exchange of word vectors at
wordvectors.org", ACL 2014), so that everyone's numbers rest on the same bytes. SimLex-999 is also in gensim's wheel,
with the same pairs and ratings in other bytes: that copy is as good.

A ceiling is Spearman's correlation between people, as published. It is of one of two kinds, which its source names:
of one person (or two) with the mean of the others, which is what a model does that is compared with mean ratings; or
the mean over pairs of people, which is lower, and which a good model can exceed.
"""

import dataclasses

COLLECTION = (
    "https://raw.githubusercontent.com/mfaruqui/eval-word-vectors/"
    "94b3dd9fdbac7ed08dbee7179cd5ee464acf0594/data/word-sim"
)


@dataclasses.dataclass(frozen=True)
class KnownRatings:
    """A dataset known by name."""

    file: str
    """Its name in the collection, or in the package."""
    citation: str
    sha256: str
    """Of that file."""
    packaged: bool = False
    """Whether it ships with the package, in `data/human`."""
    gensim_file: str = ""
    """Its name in gensim's test data, for one that is there too; "" for one that isn't."""
    gensim_sha256: str = ""
    """Of gensim's file."""
    licence: str = "none stated; ask the authors before passing the file on"
    ceiling: float | None = None
    """How far people agree, or None where it isn't published (or not as Spearman's correlation)."""
    ceiling_source: str = ""


KNOWN = {
    "wordsim353": KnownRatings(
        file="wordsim353.tsv",
        packaged=True,
        sha256="f92a022fc2537793a15bc3a8c162ebcd74990e033a228bb6388cb71e4c0b1e1d",
        citation="Finkelstein et al., Placing search in context: the concept revisited. ACM TOIS 20, 2002",
        licence="CC BY 4.0",
        ceiling=0.61,
        ceiling_source="mean over pairs of annotators (Hill, Reichart & Korhonen, Computational Linguistics 41, 2015)",
    ),
    "simlex999": KnownRatings(
        file="EN-SIMLEX-999.txt",
        sha256="405394ffb7d25f6d0e3c041f87c9f27d29dc6b047506769953e85c4523b11685",
        gensim_file="simlex999.txt",
        gensim_sha256="d5e0501971478a511430ee880bd0121e94ac701ba86d90544d83e6d2ba3db05d",
        citation="Hill, Reichart & Korhonen, SimLex-999: evaluating semantic models with (genuine) similarity "
        "estimation. Computational Linguistics 41, 2015",
        ceiling=0.78,
        ceiling_source="an annotator with the mean of the others; 0.67 over pairs of annotators "
        "(Hill, Reichart & Korhonen, Computational Linguistics 41, 2015)",
    ),
    "men": KnownRatings(
        file="EN-MEN-TR-3k.txt",
        sha256="888b13580faa362c7b11da0a670258cf1b1eb4bf0ecbcd418918729a3bd3f43a",
        citation="Bruni, Tran & Baroni, Multimodal distributional semantics. JAIR 49, 2014",
        licence="CC BY 2.0",
        ceiling=0.84,
        ceiling_source="the mean of two of its authors with the crowd's rating; 0.68 between the two "
        "(Bruni, Tran & Baroni, JAIR 49, 2014)",
    ),
    "wordsim353_similarity": KnownRatings(
        file="EN-WS-353-SIM.txt",
        sha256="f1da938998863c94e53f72f984a5c6e215f0b46c323aae8f0f4930703a339107",
        citation="Agirre et al., A study on similarity and relatedness using distributional and WordNet-based "
        "approaches. NAACL 2009; of Finkelstein et al., ACM TOIS 20, 2002",
        licence="CC BY 4.0",
    ),
    "wordsim353_relatedness": KnownRatings(
        file="EN-WS-353-REL.txt",
        sha256="66a7c88100624d0a391605ff61ce84e11d11ee620d51ec0298da49592838f8fa",
        citation="Agirre et al., A study on similarity and relatedness using distributional and WordNet-based "
        "approaches. NAACL 2009; of Finkelstein et al., ACM TOIS 20, 2002",
        licence="CC BY 4.0",
    ),
    "rg65": KnownRatings(
        file="EN-RG-65.txt",
        sha256="c243f3a91c3f5d8cf67f21a67f6fb80bde8b6bb060851a6a48e6f2d68ec98c9f",
        citation="Rubenstein & Goodenough, Contextual correlates of synonymy. CACM 8, 1965",
    ),
    "mc30": KnownRatings(
        file="EN-MC-30.txt",
        sha256="33ee05911496ff83d95cac351d0746c6f63b9181b605cb7d307f4daa8864511b",
        citation="Miller & Charles, Contextual correlates of semantic similarity. Language and Cognitive Processes 6, "
        "1991",
    ),
    "mturk771": KnownRatings(
        file="EN-MTurk-771.txt",
        sha256="04dc297c9e86b6fa7cf8ef0e4ba2e2c8d3399ec68d92fb7a53c0b4aae27198b5",
        citation="Halawi, Dror, Gabrilovich & Koren, Large-scale learning of word relatedness with constraints. "
        "KDD 2012",
    ),
    "simverb3500": KnownRatings(
        file="EN-SimVerb-3500.txt",
        sha256="9d84274e7ad029fd3cf69dd0516e9ade624bbef9bd4e2050f6cc1fa01471e0f5",
        citation="Gerz, Vulić, Hill, Reichart & Korhonen, SimVerb-3500: a large-scale evaluation set of verb "
        "similarity. EMNLP 2016",
        ceiling=0.86,
        ceiling_source="an annotator with the mean of the others; 0.84 over pairs of annotators (Gerz et al., "
        "EMNLP 2016)",
    ),
    "rareword": KnownRatings(
        file="EN-RW-STANFORD.txt",
        sha256="5108d54dfc746f44f9c3d7e31d2857c37cf71430bc1594175a61a3b89bb0ae1f",
        citation="Luong, Socher & Manning, Better word representations with recursive neural networks for morphology. "
        "CoNLL 2013",
    ),
}

PARTS = {
    "simlex999_adjectives": ("simlex999", slice(0, 111)),
    "simlex999_nouns": ("simlex999", slice(111, 777)),
    "simlex999_verbs": ("simlex999", slice(777, 999)),
}
"""Parts of known datasets, by names of their own: which of a dataset's pairs, in its order.

SimLex-999 lists its pairs by part of speech: 111 of adjectives, 666 of nouns, 222 of verbs. A part has no ceiling.
"""
