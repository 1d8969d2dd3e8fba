"""How fast do models decode?"""
