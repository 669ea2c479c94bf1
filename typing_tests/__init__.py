"""
Programs that are only type-checked: what a user's code sees of Stillroom's types.
"""
