# SPDX-License-Identifier: Apache-2.0
"""Words that are no nouns in product titles: the lexicon of the built-in tagger in `nouns.py`."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FUNCTION_WORDS = _words("""
    a an the this that these those each every any all both some such no not
    i me my you your yours he him his she her hers it its we us our they them their who whom whose which what
    myself yourself itself themselves one everyone everything something nothing
    about above across after against along among around as at before behind below beneath beside between beyond by
    down during except for from in inside into like near of off on onto out outside over per since than through to
    toward towards under underneath until up upon via with within without
    and or but nor so yet if because while when where whether how why although though unless
    am is are was were be been being do does did done has have had having can could may might must shall should will
    would
    also again always ever even just more most less least much many few fewer enough very too well only once now then
    there here never often soon still together really quite rather almost already anywhere everywhere away
    two three four five six seven eight nine ten eleven twelve hundred thousand dozen
    first third etc oh hello yes
""")
"""Closed classes, number words and adverbs: no nouns however they are written."""

MODIFIERS_IN_CAPITALS = _words("""
    full large larger largest comfortable made make makes making designed includes included including
    based lasting original oriental true regular nordic italian japanese jamaican hawaiian korean islamic
    controlled cooling sleeping sit removable resealable vegetarian damaged infused distressed shielded
    discontinued imported wrapped puffed burning levitating floating rocking reclining enjoy beveled intimate
    delicate promote promotes powered own humorous amplified remove removes revitalising revitalizing tested
    repairing smoked better shatterproof fully frosted highly colorful stay typical hold simply volumizing luscious
    modest lucky take takes keep keeps give gives get gets bring brings help helps reduce reduces improve improves
    prevent prevents protects provides looking soothing nearly approximately
    easily quickly gently perfectly extremely newly specially listed apply go
    strengthening nourishing restoring fits looks feels comes needs wants sold bought
""")
"""Adjectives and verbs that spaCy's model mostly leaves out of the proper nouns of a title in title case.

In such a title it takes nearly every other capitalised word for a part of a name, adjectives included.
"""

MODIFIERS = _words("""
    x new old big small large tiny huge great good best better fine nice soft hard high low long short tall wide narrow
    thick thin deep heavy slim fresh dry wet hot cold warm cool clean clear dark bright pale rich pure raw real
    fast slow quick quiet loud smooth rough sharp flat round oval straight strong weak tight loose safe easy
    simple single double triple dual multi full empty open closed modern classic vintage retro rustic
    antique elegant cute pretty sexy casual formal daily natural organic artificial vegan healthy sweet sour salty
    spicy crunchy creamy sensitive gentle mild professional personal portable universal compatible adjustable
    suitable perfect ideal unique special extra super ultra premium white black red blue green yellow brown grey gray
    pink purple navy beige golden wooden woolen woollen metallic magnetic electric electrical electronic
    digital analog manual automatic solid hollow sturdy durable stainless nontoxic toxic indoor outdoor
    unisex young other same different various own whole half main left right inner outer
    upper lower annual anti non semi due available total
    fit fits work works go goes get gets give gives keep keeps make makes made take takes come comes wear see say
    says know find buy sell send show showed hang hold holds help helps need needs want wants enjoy protect
    protects provide provides prevent prevents remove removes reduce reduces increase increases improve improves
    include includes install apply clean connect connects supports
""")
"""Common adjectives and verbs: no nouns where they are written in small letters."""

NO_NOUN_ENDINGS = ("able", "ible", "ful", "less", "ous", "ive", "ish", "ly", "ed", "ing", "ic", "est")
"""Endings of adjectives, adverbs and participles, for words in small letters that the lexicon does not know."""

NOUNS_IN_SPITE_OF_THEIR_ENDING = _words("""
    clothing lighting bedding earring ring string spring wing king housing coating lining stuffing dressing seasoning
    icing frosting pudding topping filling ceiling railing flooring awning bearing fitting building wedding evening
    morning thing swimming camping fishing hunting training seating shading stitching packaging painting cleaning
    styling makeup feed seed bed weed reed speed shed led family jelly belly butterfly fly assembly
    supply dragonfly lily fabric music plastic topic clinic garlic mosaic fish dish radish relish finish polish brush
    table cable vegetable timetable bible olive chive archive drive hive harvest forest chest vest nest guest interest
    request rest test
""")
