"""What a language model is asked, so that it writes sentences of a concept."""

# Fields: {concept}, {sense}, {count}, {min_words}, {max_words}
_RULES = (
    ' Each sentence holds the word "{concept}" or its plural, stands on its own, has {min_words} to {max_words} words, '
    "and differs from the others in what it says and how. Answer with a numbered list, one sentence a line, and "
    "nothing else."
)
PROMPTS = {
    "facts": "Write {count} general statements of fact about the word {concept}{sense}, as an encyclopedia has them."
    + _RULES,
    "stories": "Write {count} sentences as they stand in stories, each from another story, of different people, places "
    "and moods, in which something happens with or around: {concept}{sense}. Don't explain what it is." + _RULES,
}
SENSE = " (in the sense of: {domain})"
AGAIN = "\n\nThese are there already; don't repeat them:\n{sentences}"

# For models that only continue text
OPENINGS = {
    "facts": ("The {concept} is", "Every {concept} has", "Of all things, the {concept}", "A good {concept} can"),
    "stories": (
        "He looked at the {concept}",
        "There was no {concept}",
        "The {concept}",
        "She thought of the {concept}",
    ),
}
