def follower(colour):
    colours = ["green", "yellow", "red"]
    return colours[(colours.index(colour) + 1) % 3] if colour in colours else "red"
