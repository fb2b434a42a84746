"""How closely the worker looks at films with many scenes."""

from tests.safety.media.test_frames import BLUE, GREEN, RED, file_of, film

from forestay.media.decode import Decoder
from forestay.safety.media.frames import FRAMES, MOST_FRAMES
from forestay.safety.taxonomy import Modality
from forestay.worker.looks import Looks


async def test_a_film_with_many_scenes_is_looked_at_again_as_closely_as_can_be() -> None:
    """A harmless prompt alone would have let most of its scenes pass unseen."""
    decoder = Decoder()
    data = film([(RED, 1), (BLUE, 1)] * 15 + [(GREEN, 5)], gap=1)
    with file_of(data) as file:
        [item] = await Looks(decoder).look(file, "video.url", 0.0)
    await decoder.close()
    assert item.place.modality is Modality.VIDEO
    assert FRAMES < len(item.looks) <= MOST_FRAMES


async def test_a_film_whose_scenes_are_missed_even_then_has_no_look() -> None:
    """The policy says what becomes of what cannot be judged whole."""
    decoder = Decoder()
    data = film([(RED, 1), (BLUE, 1)] * 60 + [(GREEN, 5)], gap=1)
    with file_of(data) as file:
        [item] = await Looks(decoder).look(file, "video.url", 0.0)
    await decoder.close()
    assert item.looks == ()
