# SPDX-License-Identifier: Apache-2.0
"""Kinds of product and their options, for the generated catalogue."""

from __future__ import annotations

from dataclasses import dataclass

from agent_system.environments.webshop.generator.words import comma_list, table_rows


@dataclass(frozen=True)
class Kind:
    """A kind of product: what one query of the shop returns.

    Attributes:
        category, query, path: where the catalogue files it.
        noun: what its titles call it.
        models: words that tell one from another.
        family: name of its `Family` in synthetic_words.py.
        options: names of the `OptionGroup`s it may have.
        prices: from, to, in dollars.
    """

    category: str
    query: str
    path: str
    noun: str
    models: tuple[str, ...]
    family: str
    options: tuple[str, ...]
    prices: tuple[float, float]


@dataclass(frozen=True)
class OptionGroup:
    """A group of options: its name on the page, and the values to draw from, in the order in which they are shown."""

    name: str
    values: tuple[str, ...]


_ROOTS = {
    "B": ("beauty", "Beauty & Personal Care"),
    "E": ("electronics", "Electronics"),
    "P": ("electronics", "Cell Phones & Accessories"),
    "H": ("garden", "Home & Kitchen"),
    "C": ("fashion", "Clothing, Shoes & Jewelry"),
    "G": ("grocery", "Grocery & Gourmet Food"),
}


def _kinds(table: str) -> tuple[Kind, ...]:
    """A line "family: path" goes before the kinds filed there."""
    kinds = []
    family, category, above = "", "", ""
    for row in table_rows(table):
        if len(row) == 1:
            family, _, path = row[0].partition(": ")
            category, root = _ROOTS[path[0]]
            above = root + path[1:]
        else:
            query, leaf, noun, models, options, low, high = row
            names, prices = comma_list(options), (float(low), float(high))
            kinds.append(Kind(category, query, f"{above} › {leaf}", noun, comma_list(models), family, names, prices))
    return tuple(kinds)


KINDS = _kinds("""
hair: B › Hair Care
hair masks | Hair Masks | Hair Mask | Repair, Keratin, Deep Moisture, Honey, Silk | bottle, scent | 7 | 32
shampoo & conditioner | Shampoo & Conditioner | Shampoo & Conditioner | Volume, Repair, Color Care, Cucumber, Balance | bottle, scent | 6 | 34
hair styling creams | Styling Products | Hair Styling Cream | Curl, Matte, Wave, Definition, Surf | bottle, scent | 8 | 28
scalp oils | Hair & Scalp Treatments | Scalp Oil | Rosemary, Overnight, Root, Amber, Peppermint | bottle | 9 | 36
skin: B › Skin Care › Face
face creams | Creams & Moisturizers | Face Cream | Night, Day, Glow, Calm, Water | jar | 9 | 48
face serums | Serums | Face Serum | Radiance, Bounce, Night, Peptide, Dew | bottle | 9 | 55
skin: B › Skin Care › Body
body lotions | Lotions | Body Lotion | Oat, Silk, Winter, Almond Milk, Daily | bottle, scent | 6 | 26
body scrubs | Scrubs | Body Scrub | Sugar, Coffee, Salt, Bamboo, Cherry | jar, scent | 8 | 30
makeup: B › Skin Care › Lip Care
lip balms | Lip Balms | Lip Balm | Honey, Tinted, Overnight, Cherry, Mint | freshflavor | 3 | 14
makeup: B › Makeup › Lips
lipsticks | Lipstick | Lipstick | Velvet, Satin, Cushion, Crayon, Classic | shade | 5 | 24
makeup: B › Makeup › Eyes
mascaras | Mascara | Mascara | Volume, Length, Feather, Curl, Bold | shade | 6 | 26
makeup: B › Makeup › Face
face foundations | Foundation | Face Foundation | Airy, Cushion, Satin, Serum, Mineral | shade | 8 | 38
makeup: B › Foot, Hand & Nail Care
nail polish | Nail Polish | Nail Polish | Gel, Chrome, Pearl, Matte, Glitter | shade | 4 | 18
oral: B › Oral Care
toothbrushes | Toothbrushes | Toothbrush | Bamboo, Sonic, Compact, Wave, Duo | color, count | 5 | 40
toothpaste | Toothpaste | Toothpaste | Mint, Charcoal, Herbal, Enamel, Cool | freshflavor, pack | 4 | 18
mouthwash | Mouthwash | Mouthwash | Arctic, Herbal, Mild, Citrus, Evening | freshflavor, pack | 5 | 19
scent: B › Personal Care
deodorants & antiperspirants | Deodorants & Antiperspirants | Deodorant | Stick, Roll On, Cream, Crystal, Spray | scent, pack | 4 | 22
scent: B › Fragrance
men's fragrance | Men's | Men's Cologne Fragrance | Cedar, Harbor, Leather, Amber, Vetiver | spray | 14 | 85
women's fragrance | Women's | Women's Perfume Fragrance | Jasmine, Fig, Peony, Musk, Iris | spray | 14 | 92
tools: B › Tools & Accessories
makeup brushes & tools | Makeup Brushes & Tools | Makeup Brush Set | Fan, Kabuki, Angled, Blending, Studio | color, count | 7 | 38
makeup mirrors | Mirrors | Makeup Mirror | Folding, Round, Tabletop, Magnifying, Pocket | color | 9 | 52
cosmetic bags | Bags & Cases | Cosmetic Bag | Quilted, Clear, Hanging, Canvas, Roll Up | color, bagsize | 8 | 34
refillable containers | Refillable Containers | Refillable Bottle Set | Spray, Pump, Squeeze, Roller, Dropper | color, count | 6 | 22
audio: E › Portable Audio & Video
bluetooth speakers | Bluetooth Speakers | Bluetooth Speaker | Mini, Cylinder, Party, Shelf, Beach | color, style | 15 | 140
audio: E › Headphones
over-ear headphones | Over-Ear Headphones | Over-Ear Headphones | Studio, Folding, Retro, Travel, Gaming | color | 18 | 190
wireless earbuds | Earbud Headphones | Wireless Earbuds | Sport, Nano, Loop, Pebble, Open | color | 14 | 130
audio: E › Home Audio › Speakers
soundbars | Soundbars | Soundbar | Slim, Compact, Tower, Cinema, Curved | color, style | 45 | 320
power: E › Accessories & Supplies › Cables
hdmi cables | HDMI Cables | HDMI Cable | Flat, Angled, Armored, Coiled, Studio | cable, color | 6 | 38
power: E › Computers & Accessories › Cables
usb cables | USB Cables | USB Cable | Type C, Magnetic, Coiled, Flat, Angled | cable, color | 5 | 24
power: P › Accessories › Chargers & Power Adapters
power banks | Power Banks | Power Bank | Pocket, Solar, Brick, Card, Duo | color, capacity | 15 | 75
wall chargers | Wall Chargers | Wall Charger | Cube, Folding, Desk, Tower, Twin | color, style | 8 | 45
power: E › Accessories & Supplies
power strips | Power Strips | Power Strip | Flat, Tower, Desk, Corner, Cube | cable, color | 11 | 48
phone: P › Accessories › Cases, Holsters & Sleeves
phone cases | Basic Cases | Phone Case | Bumper, Wallet, Clear, Ring, Flip | color, phonefit | 7 | 36
phone: P › Accessories
screen protectors | Screen Protectors | Screen Protector | Matte, Privacy, Clear, Edge, Paper | phonefit, count | 5 | 22
phone: P › Accessories › Smartwatch Accessories
smartwatch bands | Smartwatch Bands | Smartwatch Band | Loop, Link, Sport, Mesh, Woven | color, watch | 7 | 35
phone: P › Accessories › Automobile Accessories
car phone mounts | Cradles | Car Phone Mount | Vent, Dash, Magnetic, Windshield, Gooseneck | color, style | 9 | 39
video: E › Television & Video
projectors | Video Projectors | Projector | Mini, Ceiling, Pocket, Short Throw, Studio | color, style | 65 | 480
video: E › Television & Video › Television Accessories
tv mounts | TV Mounts | TV Mount | Swivel, Tilting, Corner, Fixed, Ceiling | screen | 18 | 120
video: E › Security & Surveillance
security cameras | Security Cameras | Security Camera | Dome, Bullet, Doorbell, Pan Tilt, Garden | color, count | 24 | 210
video: E › Camera & Photo
camera tripods | Tripods & Monopods | Camera Tripod | Travel, Tabletop, Flexible, Studio, Video | color, height | 16 | 130
video: E › Television & Video
streaming players | Streaming Media Players | Streaming Player | Stick, Box, Cube, Disc, Hub | style | 22 | 140
power: E › Computers & Accessories › Laptop Accessories
laptop stands | Stands | Laptop Stand | Folding, Tower, Vented, Swivel, Bed | color, screen | 14 | 60
power: E › Computers & Accessories
wireless keyboards | Keyboards | Wireless Keyboard | Compact, Split, Quiet, Backlit, Retro | color, style | 16 | 110
furniture: H › Furniture › Living Room Furniture
console tables | Console Tables | Console Table | Narrow, Industrial, Rustic, Curved, Folding | finish, width | 60 | 420
coffee tables | Coffee Tables | Coffee Table | Lift Top, Round, Nesting, Trunk, Low | finish, width | 55 | 460
furniture: H › Furniture › Bedroom Furniture
nightstands | Nightstands | Nightstand | Two Drawer, Floating, Narrow, Round, Cane | finish | 38 | 240
seating: H › Furniture › Bedroom Furniture
bed frames | Bed Frames | Bed Frame | Platform, Sleigh, Canopy, Low, Tufted | finish, bed | 95 | 680
furniture: H › Furniture › Home Office Furniture
bookcases | Bookcases | Bookcase | Ladder, Corner, Cube, Open, Barrister | finish, shelves | 48 | 380
desks | Desks | Desk | Writing, Corner, Standing, Folding, Secretary | finish, width | 65 | 520
seating: H › Furniture › Home Office Furniture
office chairs | Chairs | Office Chair | Swivel, Mesh Back, Drafting, Executive, Task | color | 70 | 430
seating: H › Furniture › Dining Room Furniture
bar stools | Bar Stools | Bar Stool | Swivel, Backless, Saddle, Counter, Pub | color, setof | 45 | 290
seating: H › Furniture › Living Room Furniture
sofas and couches | Sofas & Couches | Sofa Couch | Loveseat, Sectional, Sleeper, Chesterfield, Modular | color | 210 | 990
ottomans | Ottomans | Ottoman | Round, Folding, Cube, Bench, Tufted | color | 28 | 190
furniture: H › Storage & Organization
shoe racks | Shoe Racks | Shoe Rack | Stackable, Bench, Rotating, Slim, Hall | finish, shelves | 22 | 140
lighting: H › Lighting › Lamps & Shades
table lamps | Table Lamps | Table Lamp | Mushroom, Banker, Tripod, Globe, Gooseneck | finish, setof | 22 | 150
floor lamps | Floor Lamps | Floor Lamp | Arc, Tripod, Torch, Tree, Column | finish | 35 | 230
lighting: H › Lighting › Ceiling Lights
chandeliers | Chandeliers | Chandelier | Ring, Branch, Lantern, Sputnik, Candle | finish, lights | 58 | 480
lighting: H › Lighting › Wall Lights
wall sconces | Wall Sconces | Wall Sconce | Swing Arm, Globe, Lantern, Picture, Cone | finish, setof | 24 | 160
textile: H › Bedding › Decorative Pillows
throw pillow covers | Throw Pillow Covers | Throw Pillow Cover | Striped, Corduroy, Knitted, Botanical, Boho | color, pillow | 8 | 36
textile: H › Bedding › Blankets & Throws
throw blankets | Throws | Throw Blanket | Waffle, Fringed, Sherpa, Plaid, Chunky | color, blanket | 16 | 78
textile: H › Home Décor › Window Treatments
window curtains | Curtains | Window Curtain | Blackout, Sheer, Linen Look, Grommet, Pleated | color, curtain | 16 | 88
textile: H › Home Décor › Rugs
area rugs | Area Rugs | Area Rug | Persian, Shaggy, Braided, Geometric, Jute | color, rug | 28 | 320
art: H › Home Décor › Wall Art
wall art | Posters & Prints | Wall Art Print | Botanical, Abstract, Coastal, Map, Line | style, picture | 12 | 110
textile: H › Bath
shower curtains | Shower Curtains | Shower Curtain | Waffle, Floral, Marble, Tassel, Ocean | color, curtain | 12 | 46
tops: C › Women › Clothing
women's dresses | Dresses | Women's Dress | Wrap, Maxi, Shirt, Tea, Tiered | color, clothes | 17 | 78
women's tops, tees & blouses | Tops & Tees | Women's Blouse Top | Tunic, Peasant, Keyhole, Henley, Peplum | color, clothes | 11 | 46
women's sweaters | Sweaters | Women's Sweater | Cable, Cardigan, Turtleneck, Cropped, Fisherman | color, clothes | 18 | 82
bottoms: C › Women › Clothing
women's leggings | Leggings | Women's Leggings | Capri, Ribbed, Yoga, Fleece, Seamless | color, clothes | 12 | 58
women's skirts | Skirts | Women's Skirt | Pleated, Pencil, Midi, Denim, Flared | color, clothes | 14 | 62
tops: C › Women › Clothing
women's pajamas | Sleep & Lounge | Women's Pajama Set | Satin, Flannel, Ruffle, Checked, Kimono | color, clothes | 17 | 64
shoes: C › Women › Shoes
women's sandals | Sandals | Women's Sandals | Wedge, Slide, Gladiator, Espadrille, Thong | color, womenshoes | 16 | 88
women's boots | Boots | Women's Boots | Chelsea, Combat, Riding, Ankle, Snow | color, womenshoes | 28 | 160
women's pumps | Pumps | Women's Pumps | Kitten, Block Heel, Pointed, Mary Jane, Slingback | color, womenshoes | 22 | 110
bottoms: C › Men › Clothing
men's pants | Pants | Men's Pants | Cargo, Chino, Jogger, Pleated, Work | color, waist, fit | 18 | 78
men's shorts | Shorts | Men's Shorts | Cargo, Board, Mesh, Chino, Running | color, clothes | 13 | 52
tops: C › Men › Clothing
men's t-shirts & tanks | T-Shirts & Tanks | Men's T-Shirt | Pocket, Graphic, Crewneck, Striped, Vintage | color, clothes, fit | 9 | 36
men's dress shirts | Dress Shirts | Men's Dress Shirt | Oxford, Twill, Checked, Spread Collar, Poplin | color, clothes, fit | 19 | 82
tops: C › Men › Clothing
men's hoodies & sweatshirts | Hoodies & Sweatshirts | Men's Hoodie Sweatshirt | Zip, Pullover, Fleece, Raglan, College | color, clothes | 19 | 74
men's jackets & coats | Jackets & Coats | Men's Jacket | Bomber, Denim, Puffer, Field, Trucker | color, clothes | 32 | 190
shoes: C › Men › Shoes
men's sneakers | Fashion Sneakers | Men's Sneakers | Canvas, Court, Runner, High Top, Knit | color, menshoes | 28 | 130
men's sandals | Sandals | Men's Sandals | Slide, Fisherman, Trail, Flip Flop, Sport | color, menshoes | 18 | 92
men's loafers & slip-ons | Loafers & Slip-Ons | Men's Loafers | Penny, Driving, Tassel, Boat, Venetian | color, menshoes | 26 | 140
snack: G › Breakfast & Cereal Bars
protein bars | Protein Bars | Protein Bar | Crisp, Baked, Layered, Crunch, Oat | flavor, pack | 10 | 36
snack: G › Snacks & Sweets › Nuts & Seeds
trail mixes | Trail Mixes | Trail Mix | Mountain, Tropical, Berry, Campfire, Orchard | pack | 7 | 32
snack: G › Snacks & Sweets › Snack Foods
potato chips | Chips | Potato Chips | Kettle, Ridged, Thin, Rustic, Wavy | savory, pack | 5 | 30
popcorn | Popcorn | Popcorn | Kettle, Butter, White Cheddar, Skinny, Movie | savory, pack | 5 | 28
snack: G › Snacks & Sweets
cookies | Cookies | Cookies | Shortbread, Chewy, Soft Baked, Sandwich, Oat | flavor, pack | 5 | 32
crackers | Crackers | Crackers | Seeded, Rye, Woven, Water, Cheese | savory, pack | 5 | 27
snack: G › Snacks & Sweets › Candy & Chocolate
chocolate bars | Bars | Chocolate Bar | Dark, Milk, Salted, Filled, Single Origin | flavor, pack | 6 | 34
gummy candies | Gummy Candies | Gummy Candy | Sour, Bear, Ring, Worm, Peach | flavor, pack | 4 | 24
snack: G › Produce
dried fruits | Dried Fruits | Dried Fruit | Mango, Apricot, Fig, Cranberry, Apple | pack | 6 | 33
snack: G › Breakfast Foods › Cereals
granola | Granola | Granola | Maple, Cluster, Nutty, Forest, Honey | flavor, pack | 6 | 30
pantry: G › Breakfast Foods › Cereals
oatmeal | Oatmeal | Oatmeal | Steel Cut, Overnight, Instant, Rolled, Scottish | flavor, pack | 5 | 28
pantry: G › Beverages › Tea
herbal teas | Herbal | Herbal Tea | Chamomile, Ginger, Rooibos, Hibiscus, Lemon Balm | teabags | 4 | 26
pantry: G › Beverages › Coffee
coffee beans | Whole Bean | Coffee Beans | Espresso, Breakfast, House, Highland, Decaf | roast, pack | 9 | 42
pantry: G › Beverages › Cocoa
hot chocolate | Hot Chocolate | Hot Chocolate | Alpine, Spiced, Marshmallow, Classic, Midnight | flavor, pack | 6 | 28
pantry: G › Pantry Staples
pasta noodles | Pasta & Noodles | Pasta Noodles | Penne, Linguine, Farfalle, Rigatoni, Egg | pack | 5 | 30
pantry: G › Pantry Staples › Dried Grains
rice & grains | Rice | Rice | Basmati, Jasmine, Wild, Arborio, Brown | pack | 6 | 36
pantry: G › Pantry Staples › Sauces
pasta sauces | Pasta Sauces | Pasta Sauce | Basil, Roasted Garlic, Arrabbiata, Vodka, Mushroom | pack | 6 | 32
hot sauces | Hot Sauces | Hot Sauce | Habanero, Smoky, Jalapeno, Mango, Ghost Pepper | heat, pack | 5 | 28
pantry: G › Pantry Staples › Cooking Oils
olive oils | Olive Oils | Olive Oil | Extra Virgin, Early Harvest, Lemon, Cold Pressed, Estate | oil | 9 | 54
pantry: G › Pantry Staples › Soups & Stocks
soups | Soups | Soup | Lentil, Tomato, Minestrone, Chowder, Ramen | flavorsoup, pack | 6 | 34
pantry: G › Pantry Staples › Herbs, Spices & Seasonings
spice blends | Blends | Spice Blend | Taco, Curry, Barbecue, Italian, Chai | heat, pack | 5 | 24
pantry: G › Pantry Staples › Baking
baking mixes | Baking Mixes | Baking Mix | Pancake, Brownie, Muffin, Waffle, Bread | flavor, pack | 5 | 26
""")  # noqa: E501  (one kind a line)

OPTION_GROUPS: dict[str, OptionGroup] = {
    row[0]: OptionGroup(row[1], comma_list(row[2]))
    for row in table_rows("""
color      | Color       | Black, White, Grey, Navy Blue, Red, Light Blue, Dark Green, Olive, Beige, Pink, Wine, Brown
shade      | Color       | Rose Pink, Berry, Coral, Nude, Cherry Red, Mauve, Plum, Peach, Brick, Honey Beige
finish     | Color       | Natural Oak, Walnut, White, Black, Espresso, Grey Wash, Rustic Brown, Antique Bronze
scent      | Scent       | Lavender, Citrus, Coconut, Eucalyptus, Vanilla, Sandalwood, Rose, Unscented
flavor     | Flavor Name | Vanilla, Chocolate, Strawberry, Caramel, Lemon, Cinnamon, Peanut Butter, Original, Blueberry
freshflavor | Flavor Name | Peppermint, Spearmint, Cinnamon, Watermelon, Vanilla Mint, Lemon Lime
savory     | Flavor Name | Original, Sour Cream, Barbecue, Salt & Vinegar, Jalapeno, Sharp Cheddar
flavorsoup | Flavor Name | Vegetable, Chicken, Spicy Beef, Pumpkin, Wild Mushroom, Coconut Curry
roast      | Style       | Light Roast, Medium Roast, Dark Roast, French Roast
heat       | Style       | Mild, Medium, Hot, Extra Hot
style      | Style       | Basic, Plus, Pro, With Case, Twin Set, Starter Kit
phonefit   | Style       | Six Inch, Six Inch Pro, Mini Five Inch, Max Seven Inch, Fold
clothes    | Size        | X-Small, Small, Medium, Large, X-Large, XX-Large
waist      | Size        | 28W x 30L, 30W x 30L, 32W x 32L, 34W x 32L, 36W x 34L, 38W x 34L
womenshoes | Size        | 5, 5.5, 6, 6.5, 7, 7.5, 8, 9, 10
menshoes   | Size        | 7, 8, 8.5, 9, 9.5, 10, 10.5, 11, 12
fit        | Fit Type    | Regular, Big & Tall, Youth
bottle     | Size        | 3.4 Fl Oz, 6.8 Fl Oz, 8.5 Fl Oz, 12 Fl Oz, 16 Fl Oz
jar        | Size        | 1.7 Ounce, 3.4 Ounce, 5 Ounce, 8 Ounce
spray      | Size        | 10 ml, 30 ml, 50 ml, 100 ml
oil        | Size        | 8.5 Fl Oz, 17 Fl Oz, 25 Fl Oz, 34 Fl Oz
pack       | Size        | 8 Ounce (Pack of 1), 8 Ounce (Pack of 2), 12 Ounce (Pack of 4), 16 Ounce (Pack of 6)
teabags    | Size        | 18 Count (Pack of 1), 20 Count (Pack of 3), 40 Count (Pack of 1), 100 Count (Pack of 1)
count      | Size        | 1 Count, 2 Count, 3 Count, 4 Count, 6 Count
setof      | Size        | Set of 1, Set of 2, Set of 3, Set of 4
bagsize    | Size        | Small Pouch, Medium Pouch, Large Case, Trolley Case
cable      | Size        | 3 Feet, 6 Feet, 10 Feet, 15 Feet, 25 Feet
capacity   | Size        | 5000 mAh, 10000 mAh, 20000 mAh, 26800 mAh
watch      | Size        | 38 mm, 40 mm, 42 mm, 44 mm
screen     | Size        | 13 to 15 Inch, 17 to 24 Inch, 26 to 43 Inch, 32 to 65 Inch
height     | Size        | 20 Inch, 50 Inch, 60 Inch, 72 Inch
width      | Size        | 32 Inch, 39 Inch, 47 Inch, 55 Inch, 63 Inch
shelves    | Size        | 3 Shelves, 4 Shelves, 5 Shelves, 6 Shelves
lights     | Size        | 3 Lights, 5 Lights, 6 Lights, 8 Lights
bed        | Size        | Twin, Full, Queen, King
pillow     | Size        | 16 x 16 Inch, 18 x 18 Inch, 20 x 20 Inch, 12 x 20 Inch
blanket    | Size        | 40 x 50 Inch, 50 x 60 Inch, 60 x 80 Inch
curtain    | Size        | 42 x 63 Inch, 52 x 84 Inch, 52 x 96 Inch, 72 x 72 Inch
rug        | Size        | 2 x 3 Feet, 4 x 6 Feet, 5 x 7 Feet, 8 x 10 Feet
picture    | Size        | 8 x 10 Inch, 12 x 16 Inch, 16 x 24 Inch, 24 x 36 Inch
""")
}
"""By the names that `Kind.options` uses. No value is in two groups that one kind may have."""

BRANDS = tuple(
    f"{first}{last}"
    for first in ("Tal", "Vor", "Kel", "Bran", "Ost", "Lum", "Ner", "Quil", "Zan", "Haw", "Mir", "Dor")
    for last in ("vono", "belle", "wick", "tara", "essen", "oria", "mund", "lio", "quist", "dene")
)
"""Invented names."""
