"""Labels target images: python pseudo_label.py --restore-from FILE --threshold 0.5"""

from uda.commands.label import main

if __name__ == "__main__":
    main()
