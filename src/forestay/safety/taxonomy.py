"""The one internal taxonomy of harm, and what each category is called elsewhere.

Sources of the codes: MLCommons AILuminate 1.0 (twelve hazards, three letters each), the OpenAI moderation endpoint
(omni-moderation, thirteen categories) and Azure AI Content Safety (four harms). A category may have no word in one of
them, and several of ours may share one there. Decides nothing. Called by policies, detectors, records and answers.
"""

import dataclasses
import enum
from collections.abc import Mapping


class Category(enum.StrEnum):
    """A kind of harm."""

    SEXUAL = "sexual"
    SEXUAL_CRIMES = "sexual_crimes"
    MINORS = "minors"  # sexual content about minors: matched by hash and marker only, never scored by a model of ours
    VIOLENCE = "violence"
    GRAPHIC_VIOLENCE = "graphic_violence"
    HATE = "hate"
    HARASSMENT = "harassment"
    SELF_HARM = "self_harm"
    WEAPONS = "weapons"  # means of mass harm
    ILLICIT = "illicit"  # crimes without violence, and how to commit them
    PRIVACY = "privacy"
    DEFAMATION = "defamation"
    INTELLECTUAL_PROPERTY = "intellectual_property"
    ADVICE = "advice"  # specialised advice: medical, legal, financial


class Modality(enum.StrEnum):
    """What kind of content is judged."""

    TEXT = "text"
    IMAGE = "image"
    VIDEO = "video"
    AUDIO = "audio"


@dataclasses.dataclass(frozen=True, slots=True)
class Codes:
    """What a category is called in three vocabularies; empty where there is no word for it."""

    ailuminate: str
    openai: str
    azure: str


CODES: Mapping[Category, Codes] = {
    Category.SEXUAL: Codes("sxc_prn", "sexual", "Sexual"),
    Category.SEXUAL_CRIMES: Codes("src", "sexual", "Sexual"),
    Category.MINORS: Codes("cse", "sexual/minors", "Sexual"),
    Category.VIOLENCE: Codes("vcr", "violence", "Violence"),
    Category.GRAPHIC_VIOLENCE: Codes("vcr", "violence/graphic", "Violence"),
    Category.HATE: Codes("hte", "hate", "Hate"),
    Category.HARASSMENT: Codes("hte", "harassment", "Hate"),
    Category.SELF_HARM: Codes("ssh", "self-harm", "SelfHarm"),
    Category.WEAPONS: Codes("iwp", "illicit/violent", "Violence"),
    Category.ILLICIT: Codes("ncr", "illicit", ""),
    Category.PRIVACY: Codes("prv", "", ""),
    Category.DEFAMATION: Codes("dfm", "", ""),
    Category.INTELLECTUAL_PROPERTY: Codes("ipv", "", ""),
    Category.ADVICE: Codes("spc", "", ""),
}
