"""How fast does TPA train?"""
