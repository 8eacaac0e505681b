# SPDX-License-Identifier: Apache-2.0
"""The vocabulary of the texts of a generated catalogue.

The names of attributes are of the published kind: two words, as they are in the text. What a product does *not* have
must not be read out of its text either, so no sentence holds the name of another attribute, and no two names are
near enough for the reward to take one for the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile


@dataclass(frozen=True)
class Attribute:
    """A property that a product can have and an instruction can require.

    Attributes:
        name: as in the attribute file.
        role: how an instruction names it: "is" before the noun, "with" or "for" after it.
        sentence: states it in a description or a bullet; holds the name in small letters.
    """

    name: str
    role: str
    sentence: str


@dataclass(frozen=True)
class Family:
    """What kinds of product have in common.

    Attributes:
        attributes: names; "a/b" are alternatives of which a product has at most one.
        uses: purposes of the product in its title.
        fillers: sentences with nothing that an instruction requires.
    """

    attributes: tuple[tuple[str, ...], ...]
    uses: tuple[str, ...]
    fillers: tuple[str, ...]


def table_rows(table: str) -> list[list[str]]:
    """Cells of a table whose lines are rows, with "|" between cells."""
    return [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()]


def comma_list(text: str) -> tuple[str, ...]:
    """Its parts, with "," between them."""
    return tuple(part.strip() for part in text.split(","))


_ATTRIBUTES = """
sulfate free        | is   | The formula is sulfate free and rinses out without residue.
paraben free        | is   | Made paraben free, with every ingredient named on the label.
cruelty free        | is   | Certified cruelty free from the first trial to the shelf.
alcohol free        | is   | An alcohol free recipe that does not sting.
fragrance free      | is   | It is fragrance free, for noses that prefer nothing at all.
dermatologist tested | is | Every batch is dermatologist tested before it is filled.
oil free            | is   | The texture is oil free and sinks in within a minute.
anti aging          | is   | An anti aging routine in one step, morning or evening.
highly pigmented    | is   | A highly pigmented shade covers in a single stroke.
easy apply          | is   | Made for easy apply: glide it on, blend, and go.
water resistant     | is   | It stays water resistant through rain and splashes.
non toxic           | is   | Only non toxic materials are used, inside and out.
fluoride free       | is   | The blend is fluoride free and suits the whole family.
bpa free            | is   | All parts are bpa free and food grade.
clinically proven   | is   | The effect is clinically proven after four weeks.
long lasting        | is   | The result is long lasting, from breakfast to midnight.
aluminum free       | is   | It is aluminum free and leaves no marks on dark cloth.
anti perspirant     | is   | The anti perspirant action keeps up with a full day.
travel size         | is   | The travel size passes every cabin check.
easy carry          | is   | Folded for easy carry in a handbag or glove box.
leak proof          | is   | A leak proof lid keeps the contents where they belong.
double sided        | is   | The double sided design gives two looks in one piece.
high quality        | is   | You will notice the high quality at the first touch.
non slip            | is   | The non slip grip holds on wet and dry hands or floors.
easy clean          | is   | Smooth edges make it easy clean with a damp cloth.
eco friendly        | is   | Packed in an eco friendly box without plastic.
coconut oil         | with | Cold pressed coconut oil is the heart of the recipe.
argan oil           | with | A few drops of argan oil add shine.
tea tree            | with | Steamed tea tree leaves give a cooling feel.
natural ingredients | with | It relies on natural ingredients grown without haste.
hyaluronic acid     | with | Light hyaluronic acid binds moisture where it is needed.
shea butter         | with | Whipped shea butter makes it melt at body warmth.
aloe vera           | with | Fresh aloe vera calms after sun and wind.
essential oils      | with | The scent comes from essential oils alone.
green tea           | with | An extract of green tea rounds it off.
vitamin c           | with | Stabilised vitamin c brightens dull days.
stainless steel     | with | Parts of stainless steel do not rust.
rose gold           | with | Details in rose gold look like jewellery.
storage case        | with | It comes in its own storage case.
soft bristles       | with | Rounded soft bristles reach every corner.
damaged hair        | for  | Developed for damaged hair after bleach and heat.
dry hair            | for  | A weekly treat for dry hair and brittle tips.
hair growth         | for  | Massage it in to support hair growth at the roots.
natural hair        | for  | Works on natural hair of every curl pattern.
sensitive skin      | for  | Mild enough for sensitive skin and small children.
dry skin            | for  | A rich layer for dry skin in cold months.
fine lines          | for  | Visibly smooths fine lines around the eyes.
dead skin           | for  | Gently lifts off dead skin and dullness.
dark circles        | for  | Cools and evens dark circles after short nights.
nail art            | for  | A steady companion for nail art at the kitchen table.
eye shadow          | for  | The shape is right for eye shadow, loose or pressed.
sensitive teeth     | for  | Kind to sensitive teeth that dislike ice and sweets.
bad breath          | for  | Takes care of bad breath at its source.
teeth whitening     | for  | Dentists recommend it for teeth whitening at home.
oral hygiene        | for  | A simple step for better oral hygiene.
noise cancelling    | is   | The noise cancelling mode shuts out trains and offices.
hands free          | is   | Take calls hands free while you cook or drive.
wireless bluetooth  | is   | Pair by wireless bluetooth within ten metres.
fast charging       | is   | With fast charging, ten minutes give two hours.
high performance    | is   | A high performance chip keeps delays unnoticed.
plug play           | is   | It is plug play: no driver, no account.
high speed          | is   | Data moves at high speed even when files are large.
gold plated         | is   | Contacts are gold plated against corrosion.
nylon braided       | is   | The cord is nylon braided and does not tangle.
heavy duty          | is   | A heavy duty build that survives daily knocks.
shock proof         | is   | Raised corners make it shock proof in a fall.
scratch resistant   | is   | The surface is scratch resistant against keys and sand.
ultra slim          | is   | At two millimetres it is ultra slim and hardly felt.
easy install        | is   | Planned for easy install: ten minutes, one screwdriver.
high definition     | is   | The picture is high definition down to the last row.
wall mounted        | is   | It can be wall mounted to free the surface below.
light weight        | is   | The light weight shell is no burden on long days.
energy saving       | is   | An energy saving circuit halves the bill.
stereo sound        | with | Two drivers give true stereo sound.
carrying case       | with | A padded carrying case is in the box.
usb port            | with | An extra usb port feeds a second device.
surge protection    | with | Built in surge protection guards against storms.
tempered glass      | with | A pane of tempered glass takes the blows.
carbon fiber        | with | Woven carbon fiber gives structure without bulk.
wireless charging   | with | It does not block wireless charging pads.
remote control      | with | Use the remote control from across the room.
night vision        | with | Infrared night vision sees twenty metres.
motion detection    | with | Adjustable motion detection tells cats from people.
optical zoom        | with | The optical zoom brings far things near.
batteries included  | with | Two batteries included, so it runs out of the box.
aluminum alloy      | with | A body of aluminum alloy is firm and does not rust.
home theater        | for  | At its best in a home theater with the lights off.
gym workout         | for  | Made for a gym workout and the way back.
digital camera      | for  | Fits any digital camera with a standard thread.
home office         | for  | Sized for a home office in the corner of a room.
easy assemble       | is   | Numbered parts make it easy assemble in half an hour.
space saving        | is   | A space saving footprint suits small flats.
mid century         | is   | Its mid century lines go with old and new.
height adjustable   | is   | The frame is height adjustable in seven steps.
fade resistant      | is   | Dyes are fade resistant in full sun.
super soft          | is   | The pile is super soft on bare feet and cheeks.
machine wash        | is   | Care is simple: machine wash at thirty degrees.
hand wash           | is   | To keep its shape, hand wash and dry flat.
ready hang          | is   | It arrives ready hang, hooks and level enclosed.
solid wood          | with | Cut from solid wood with visible grain.
engineered wood     | with | Boards of engineered wood stay flat for years.
steel frame         | with | A welded steel frame carries the load.
storage space       | with | Hidden storage space swallows games and cables.
faux leather        | with | Covered in faux leather that wipes down.
velvet upholstery   | with | Tight velvet upholstery catches the light.
memory foam         | with | A layer of memory foam follows your shape.
glass shade         | with | The blown glass shade spreads a warm glow.
brushed nickel      | with | Fittings in brushed nickel hide fingerprints.
bronze finish       | with | The bronze finish is applied by hand.
dimmable light      | with | Its dimmable light goes from reading to film night.
hidden zipper       | with | A hidden zipper lets you change the inside.
faux fur            | with | One side is faux fur without shedding.
wooden frame        | with | Stretched on a wooden frame that does not warp.
living room         | for  | Looks at home in the living room.
dining room         | for  | Brings the dining room together.
guest bedroom       | for  | A welcome addition to a guest bedroom.
slim fit            | is   | Cut as a slim fit without pinching.
relaxed fit         | is   | The relaxed fit leaves space to move.
regular fit         | is   | It has a regular fit true to the chart.
long sleeve         | is   | The long sleeve ends in a ribbed cuff.
short sleeve        | is   | With its short sleeve it is right for warm days.
high waist          | is   | A high waist sits smoothly above the hips.
moisture wicking    | is   | The moisture wicking knit keeps you dry.
quick drying        | is   | The quick drying cloth is ready again overnight.
wrinkle free        | is   | Wear it wrinkle free straight from the suitcase.
stretch fabric      | with | The stretch fabric gives in every direction.
open toe            | is   | The open toe lets air in.
closed toe          | is   | A closed toe protects on rough ground.
slip resistant      | is   | The slip resistant tread grips on wet tiles.
elastic waistband   | with | The elastic waistband gives when you sit.
drawstring closure  | with | A drawstring closure lets you set the width.
button closure      | with | The button closure is sewn twice.
zipper pockets      | with | Deep zipper pockets keep phone and keys.
polyester spandex   | with | Knit from polyester spandex that springs back.
cotton blend        | with | Woven from a cotton blend that breathes.
rubber sole         | with | The rubber sole bends with every step.
ethylene vinyl      | with | The outsole of ethylene vinyl weighs next to nothing.
arch support        | with | Moulded arch support relieves long walks.
ankle strap         | with | An ankle strap holds the heel in place.
lace closure        | with | The lace closure tightens evenly.
hook fastening      | with | A hook fastening closes with one hand.
daily wear          | for  | Plain enough for daily wear, neat enough for guests.
evening party       | for  | It shines at an evening party.
outdoor hiking      | for  | Tried on many days of outdoor hiking.
gluten free         | is   | Tested gluten free in every lot.
non gmo             | is   | All crops are non gmo and traceable.
dairy free          | is   | It is dairy free and needs no cooling.
soy free            | is   | Made soy free in a separate kitchen.
nut free            | is   | A nut free plant keeps allergies away.
sugar free          | is   | Wholly sugar free, sweet by fruit alone.
low sodium          | is   | It is low sodium, so season to taste.
usda organic        | is   | It carries the usda organic seal.
plant based         | is   | The recipe is plant based throughout.
keto friendly       | is   | With two net carbs it is keto friendly.
shelf stable        | is   | Keeps shelf stable for a year in the cupboard.
individually wrapped | is  | Portions are individually wrapped for bags and desks.
kosher certified    | is   | The kitchen is kosher certified.
freeze dried        | is   | Pieces are freeze dried within hours of picking.
small batch         | is   | Roasted or mixed as a small batch every Monday.
low calorie         | is   | A low calorie choice between meals.
natural flavors     | with | It tastes of natural flavors and nothing else.
resealable bag      | with | A resealable bag keeps the crunch.
dietary fiber       | with | Each portion has six grams of dietary fiber.
protein serving     | with | Twelve grams make a full protein serving.
sea salt            | with | Flakes of sea salt finish it.
gift basket         | for  | A safe choice for a gift basket.
lunch box           | for  | The size is right for a lunch box.
"""

ATTRIBUTES: dict[str, Attribute] = {row[0]: Attribute(*row) for row in table_rows(_ATTRIBUTES)}


def _families(table: str) -> dict[str, Family]:
    """Blocks of a name, the attributes (all lines but the last end in a comma), the uses, and one filler a line."""
    families = {}
    for block in table.strip().split("\n\n"):
        name, *lines = block.splitlines()
        more = len(list(takewhile(lambda line: line.endswith(","), lines)))
        attributes = comma_list(" ".join(lines[: more + 1]))
        families[name] = Family(
            tuple(tuple(choice.split("/")) for choice in attributes),
            comma_list(lines[more + 1]),
            tuple(lines[more + 2 :]),
        )
    return families


FAMILIES = _families("""
hair
sulfate free, paraben free, cruelty free, alcohol free, coconut oil/argan oil, tea tree, natural ingredients,
damaged hair, dry hair, hair growth, natural hair, eco friendly
Women and Men, All Hair Types, Daily Care, Home and Salon, Curls and Waves
Use it twice a week and leave it on for three minutes.
A little goes a long way.
The bottle is made of recycled material.
Our founders mixed the first bottle in a garage.
Store it away from direct light.

skin
fragrance free, dermatologist tested, paraben free, cruelty free, oil free, anti aging, hyaluronic acid, shea butter,
aloe vera, vitamin c, sensitive skin, dry skin, fine lines/dead skin/dark circles
Face and Neck, Women and Men, Morning and Night, All Seasons, Hands and Body
Apply a small amount and wait until it has sunk in.
The jar closes tightly and looks good on any shelf.
Try it on the inside of your arm first.
Made in a small family laboratory.
It leaves no shine behind.

makeup
long lasting, cruelty free, paraben free, fragrance free, highly pigmented, easy apply, water resistant, non toxic,
oil free, shea butter, vitamin c, nail art/eye shadow
Women and Girls, Office and Party, Beginners and Artists, Day and Night, Weddings
Blend with the fingertips or a sponge.
The shade may look different on your screen.
A mirror is set into the lid.
Take it off with warm water.
The case clicks shut with one hand.

oral
fluoride free, alcohol free, bpa free, clinically proven, eco friendly, travel size, tea tree, soft bristles,
natural ingredients, sensitive teeth, bad breath, teeth whitening, oral hygiene
Adults and Kids, the Whole Family, Home and Travel, Morning and Evening
Use it for two minutes, twice a day.
Replace it after three months.
The taste is mild and does not burn.
Designed together with dental nurses.

scent
long lasting, alcohol free, aluminum free, anti perspirant, cruelty free, travel size, natural ingredients,
essential oils, aloe vera, green tea, sensitive skin
Men, Women, Men and Women, Summer Days, Office and Sport
Hold it ten centimetres away and press once.
The scent opens bright and ends warm.
The bottle stands firmly and is easy to refill.
A classic that never shouts.

tools
easy carry, travel size, leak proof, double sided, high quality, non slip, easy clean, eco friendly, stainless steel,
rose gold, storage case, eye shadow, nail art
Women and Girls, Home and Travel, Dresser and Bathroom, Beginners and Professionals
The handle lies well in the hand.
A cloth for cleaning is part of the set.
It arrives in a gift box.
Two years of guarantee.
The edges are rounded.

audio
noise cancelling, hands free, wireless bluetooth, fast charging, high performance, water resistant, light weight,
plug play, stereo sound, carrying case, usb port, carbon fiber, home theater/gym workout
Home and Office, Travel and Sport, Kids and Adults, Music and Films, Work Calls
One button does everything.
A short manual with large pictures explains it.
The voice prompt can be turned off.
The battery holds for thirty hours.
Write to us at any time if something crackles.

power
fast charging, high speed, gold plated, nylon braided, heavy duty, plug play, high performance, easy carry, usb port,
surge protection, aluminum alloy, home office/home theater
Home and Car, Tablets and Phones, Desk and Travel, Laptop and Television
A small lamp shows that it works.
It was bent ten thousand times in our tests.
The plug sits firmly and does not wobble.
A strap keeps it tidy.

phone
shock proof, scratch resistant, ultra slim, easy install, non slip, high definition, easy clean, light weight,
tempered glass, carbon fiber, wireless charging, rose gold
Women and Men, Work and Travel, Outdoor Days, Small and Large Hands
All buttons and holes stay free.
The cutouts fit to a tenth of a millimetre.
A cleaning cloth lies in the box.
Please check your model before you order.

video
high definition, easy install, wall mounted, heavy duty, plug play, light weight, energy saving, remote control,
night vision, motion detection, optical zoom, batteries included, aluminum alloy, home theater/digital camera
Home and Garden, Bedroom and Office, Travel and Studio, Day and Night
The menu speaks eleven languages.
Screws and plugs are in a small bag.
The stand turns in every direction.
Updates are free for the life of the device.

furniture
easy assemble, space saving, mid century, heavy duty, height adjustable, eco friendly, scratch resistant, easy clean,
solid wood/engineered wood, steel frame, storage space, usb port, living room/dining room/home office/guest bedroom
Small Flats, Home and Office, Entryway and Hall, Farmhouse Style, Modern Homes
All screws and a key are in the box.
Felt pads protect the floor.
Two people should carry it.
The feet can be turned to make up for uneven floors.
Dust it with a dry cloth.

seating
easy assemble, space saving, mid century, heavy duty, height adjustable, eco friendly, easy clean,
solid wood/engineered wood, steel frame, storage space, faux leather/velvet upholstery, memory foam, non slip,
living room/dining room/home office/guest bedroom
Small Flats, Home and Office, Guests and Family, Farmhouse Style, Modern Homes
All screws and a key are in the box.
Felt pads protect the floor.
Two people should carry it.
It was tried with three hundred pounds.
Buttons and piping are sewn by hand.

lighting
easy install, energy saving, mid century, height adjustable, wall mounted, remote control, glass shade,
brushed nickel/bronze finish, dimmable light, solid wood, living room/dining room/home office/guest bedroom
Hall and Stairs, Kitchen Island, Reading Corner, Farmhouse Style, Modern Homes
The bulb is not part of the delivery.
The cable is covered in cloth.
Switch it off before you clean it.
A drawing shows every step.

textile
machine wash/hand wash, fade resistant, super soft, double sided, eco friendly, non slip, quick drying, high quality,
easy clean, faux fur, hidden zipper, cotton blend, living room/dining room/guest bedroom
Home and Camper, Sofa and Bed, Farmhouse Style, Kids and Guests, All Seasons
Threads are cut and seams are checked by hand.
Shake it out after unpacking.
The pattern was drawn by an artist from the coast.
Please allow for a tolerance of an inch.

art
fade resistant, ready hang, high quality, eco friendly, easy clean, water resistant, light weight, non toxic,
wooden frame, tempered glass, aluminum alloy, living room/dining room/guest bedroom/home office
Hall and Stairs, Home and Office, Kids and Guests, Farmhouse Style, Modern Homes
The motif was drawn by an artist from the coast.
Printed on heavy paper with twelve inks.
Please allow for a tolerance of an inch.
Corners are protected on the way to you.

tops
slim fit/relaxed fit/regular fit, long sleeve/short sleeve, machine wash/hand wash, moisture wicking, quick drying,
wrinkle free, button closure, polyester spandex/cotton blend, daily wear/gym workout/evening party/outdoor hiking
Spring and Fall, Office and Home, Holidays, Friends and Family, Beach and Town
Please look at the chart before you order.
The colour may differ a little from your screen.
The neck has no label that scratches.
Seams are flat and hold.
It goes with jeans and with skirts.

bottoms
slim fit/relaxed fit/regular fit, machine wash/hand wash, moisture wicking, quick drying, wrinkle free, high waist,
stretch fabric, elastic waistband, drawstring closure/button closure, zipper pockets, polyester spandex/cotton blend,
daily wear/gym workout/outdoor hiking
Spring and Fall, Office and Home, Running and Yoga, Holidays, Beach and Town
Please look at the chart before you order.
The colour may differ a little from your screen.
Seams are flat and hold.
The hem can be turned up.

shoes
open toe/closed toe, slip resistant, light weight, water resistant, high quality, rubber sole/ethylene vinyl,
arch support, memory foam, ankle strap, lace closure/hook fastening, faux leather,
daily wear/evening party/outdoor hiking
Summer and Fall, Town and Beach, Work and Leisure, Long Days, Wide Feet
They run true to size.
A spare pair of insoles is enclosed.
Let them dry in the air.
The lining takes up moisture.

snack
gluten free, non gmo, dairy free, soy free, nut free, sugar free, usda organic, plant based, keto friendly,
individually wrapped, kosher certified, low calorie, natural flavors, dietary fiber, protein serving, resealable bag,
sea salt, gift basket/lunch box
Kids and Adults, Office and School, Hikes and Picnics, Movie Nights, Breakfast
Keep it in a cool and dry place.
The bag is smaller than it looks, and fuller.
Best within a week of opening.
The farm is run by three sisters.
No preservatives were needed.

pantry
gluten free, non gmo, dairy free, soy free, low sodium, usda organic, plant based, shelf stable, kosher certified,
freeze dried, small batch, natural flavors, resealable bag, dietary fiber, sea salt, gift basket
Quick Dinners, Home Cooks, Cold Evenings, Slow Sundays, the Whole Family
Keep it in a cool and dry place.
A recipe is printed on the back.
Best within a year.
The mill stands on the same hill since 1921.
""")
